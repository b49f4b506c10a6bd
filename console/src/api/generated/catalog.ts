// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { type Operation, operation } from '../operation'
import { EntryNameSchema, FieldErrorSchema, NameSchema, PackageSchema, TimestampSchema, TransportSchema, type EntryName, type FieldError, type Name, type Package, type Timestamp, type Transport } from './shared'

/** A category and how many entries have it. */
export interface Category {
  /** How many approved entries. */
  entries: number
  /** Its name. */
  name: string
}
export const CategorySchema: v.GenericSchema<unknown, Category> = v.object({
  entries: v.number(),
  name: v.string(),
})

/** Add a source. */
export interface CreateSource {
  /** `registry` or `file`. */
  kind: string
  /** Its name. */
  name: Name
  /** Where: a registry's base URL, or a JSON file's URL. */
  url: string
}

/** An entry in a list. */
export interface EntrySummary {
  /** Its categories. */
  categories: string[]
  /** How many servers here came from it. */
  deployments: number
  /** What it does; hostile text. */
  description: string
  /** How it can run: `npm`, `pypi`, `oci`, `remote`, ... */
  kinds: string[]
  /** Its name. */
  name: EntryName
  /** Mean of the local ratings, 1 to 5. */
  rating?: number | null
  /** How many local ratings. */
  ratings: number
  /** The name of the source it came from. */
  source: string
  /** `active`, `deprecated` or `deleted`. */
  status: string
  /** What the publisher says about the status. */
  status_message?: string | null
  /** For people. */
  title?: string | null
  /** When it changed. */
  updated_at: Timestamp
  /** Who verified it, if anyone. */
  verified_by?: string | null
  /** The latest version. */
  version: string
}
export const EntrySummarySchema: v.GenericSchema<unknown, EntrySummary> = v.object({
  categories: v.array(v.string()),
  deployments: v.number(),
  description: v.string(),
  kinds: v.array(v.string()),
  name: EntryNameSchema,
  rating: v.nullish(v.number()),
  ratings: v.number(),
  source: v.string(),
  status: v.string(),
  status_message: v.nullish(v.string()),
  title: v.nullish(v.string()),
  updated_at: TimestampSchema,
  verified_by: v.nullish(v.string()),
  version: v.string(),
})

/** An icon. */
export interface Icon {
  /** Its media type. */
  mimeType?: string | null
  /** An https address. */
  src?: string
}
export const IconSchema: v.GenericSchema<unknown, Icon> = v.object({
  mimeType: v.nullish(v.string()),
  src: v.optional(v.string()),
})

/** Where the source code is. */
export interface Repository {
  /** The hosting service. */
  source?: string
  /** The folder in it. */
  subfolder?: string | null
  /** The address. */
  url?: string
}
export const RepositorySchema: v.GenericSchema<unknown, Repository> = v.object({
  source: v.optional(v.string()),
  subfolder: v.nullish(v.string()),
  url: v.optional(v.string()),
})

/** A `server.json` document. */
export interface ServerJson {
  /** The schema it claims to follow. */
  '$schema'?: string | null
  /** Extension metadata by reverse-DNS key. */
  _meta?: Record<string, unknown> | null
  /** What it does. */
  description?: string
  /** Its icons. */
  icons?: Icon[]
  /** `namespace/name`. */
  name: string
  /** Packages to install. */
  packages?: Package[]
  /** Servers that run elsewhere. */
  remotes?: Transport[]
  repository?: Repository | null
  /** For people. */
  title?: string | null
  /** Its version; not a range. */
  version?: string
  /** Where people read about it. */
  websiteUrl?: string | null
}
export const ServerJsonSchema: v.GenericSchema<unknown, ServerJson> = v.object({
  '$schema': v.nullish(v.string()),
  _meta: v.nullish(v.record(v.string(), v.unknown())),
  description: v.optional(v.string()),
  icons: v.optional(v.array(IconSchema)),
  name: v.string(),
  packages: v.optional(v.array(PackageSchema)),
  remotes: v.optional(v.array(TransportSchema)),
  repository: v.nullish(RepositorySchema),
  title: v.nullish(v.string()),
  version: v.optional(v.string()),
  websiteUrl: v.nullish(v.string()),
})

/** An entry in full. */
export interface Entry {
  /** Its categories. */
  categories: string[]
  /** How many servers here came from it. */
  deployments: number
  /** What it does; hostile text. */
  description: string
  /** How it can run: `npm`, `pypi`, `oci`, `remote`, ... */
  kinds: string[]
  /** Its name. */
  name: EntryName
  /** Mean of the local ratings, 1 to 5. */
  rating?: number | null
  /** How many local ratings. */
  ratings: number
  /** The name of the source it came from. */
  source: string
  /** `active`, `deprecated` or `deleted`. */
  status: string
  /** What the publisher says about the status. */
  status_message?: string | null
  /** For people. */
  title?: string | null
  /** When it changed. */
  updated_at: Timestamp
  /** Who verified it, if anyone. */
  verified_by?: string | null
  /** The latest version. */
  version: string
  /** The SHA-256 of that version's document; send it as `If-Match` to approve exactly this one. */
  digest?: string
  /** How the caller rated it, 1 to 5. */
  own_rating?: number | null
  /** Whether `/v0.1/servers` shows it without a key. */
  public: boolean
  /** `approved`, `submitted` or `rejected`; entries from a source are approved. */
  review: string
  /** Why it was rejected. */
  review_reason?: string | null
  /** The version shown. */
  server: ServerJson
}
export const EntrySchema: v.GenericSchema<unknown, Entry> = v.object({
  categories: v.array(v.string()),
  deployments: v.number(),
  description: v.string(),
  kinds: v.array(v.string()),
  name: EntryNameSchema,
  rating: v.nullish(v.number()),
  ratings: v.number(),
  source: v.string(),
  status: v.string(),
  status_message: v.nullish(v.string()),
  title: v.nullish(v.string()),
  updated_at: TimestampSchema,
  verified_by: v.nullish(v.string()),
  version: v.string(),
  digest: v.optional(v.string()),
  own_rating: v.nullish(v.number()),
  public: v.boolean(),
  review: v.string(),
  review_reason: v.nullish(v.string()),
  server: ServerJsonSchema,
})

/** One version of an entry. */
export interface EntryVersionSummary {
  /** Whether it is the latest. */
  latest: boolean
  published_at?: Timestamp | null
  /** `active`, `deprecated` or `deleted`. */
  status: string
  /** The version. */
  version: string
}
export const EntryVersionSummarySchema: v.GenericSchema<unknown, EntryVersionSummary> = v.object({
  latest: v.boolean(),
  published_at: v.nullish(TimestampSchema),
  status: v.string(),
  version: v.string(),
})

/**
 * A page of a list. `next_cursor` is passed back as `cursor` to get the next page. A page of large things may hold fewer
 * than `limit` though more follow.
 */
export interface PageCategory {
  /** The things on this page. */
  items: Category[]
  /** Where the next page starts; absent on the last one. */
  next_cursor?: string | null
}
export const PageCategorySchema: v.GenericSchema<unknown, PageCategory> = v.object({
  items: v.array(CategorySchema),
  next_cursor: v.nullish(v.string()),
})

/**
 * A page of a list. `next_cursor` is passed back as `cursor` to get the next page. A page of large things may hold fewer
 * than `limit` though more follow.
 */
export interface PageEntrySummary {
  /** The things on this page. */
  items: EntrySummary[]
  /** Where the next page starts; absent on the last one. */
  next_cursor?: string | null
}
export const PageEntrySummarySchema: v.GenericSchema<unknown, PageEntrySummary> = v.object({
  items: v.array(EntrySummarySchema),
  next_cursor: v.nullish(v.string()),
})

/**
 * A page of a list. `next_cursor` is passed back as `cursor` to get the next page. A page of large things may hold fewer
 * than `limit` though more follow.
 */
export interface PageEntryVersionSummary {
  /** The things on this page. */
  items: EntryVersionSummary[]
  /** Where the next page starts; absent on the last one. */
  next_cursor?: string | null
}
export const PageEntryVersionSummarySchema: v.GenericSchema<unknown, PageEntryVersionSummary> = v.object({
  items: v.array(EntryVersionSummarySchema),
  next_cursor: v.nullish(v.string()),
})

/** A place where catalog entries come from. */
export type SourceId = string
export const SourceIdSchema: v.GenericSchema<unknown, SourceId> = v.string()

/** A place entries come from. */
export interface Source {
  /** Whether it is synced. */
  enabled: boolean
  /** How many entries it has. */
  entries: number
  /** Its id. */
  id: SourceId
  /** `built_in`, `own`, `registry` (the registry API) or `file` (a JSON file or URL). */
  kind: string
  /** Its name. */
  name: Name
  next_sync_at?: Timestamp | null
  /** Why it failed, or what it did. */
  sync_message?: string
  /** How the last sync went: `never`, `running`, `done` or `failed`. */
  sync_state: string
  synced_at?: Timestamp | null
  /** Where, for `registry` and `file`. */
  url?: string | null
}
export const SourceSchema: v.GenericSchema<unknown, Source> = v.object({
  enabled: v.boolean(),
  entries: v.number(),
  id: SourceIdSchema,
  kind: v.string(),
  name: NameSchema,
  next_sync_at: v.nullish(TimestampSchema),
  sync_message: v.optional(v.string()),
  sync_state: v.string(),
  synced_at: v.nullish(TimestampSchema),
  url: v.nullish(v.string()),
})

/**
 * A page of a list. `next_cursor` is passed back as `cursor` to get the next page. A page of large things may hold fewer
 * than `limit` though more follow.
 */
export interface PageSource {
  /** The things on this page. */
  items: Source[]
  /** Where the next page starts; absent on the last one. */
  next_cursor?: string | null
}
export const PageSourceSchema: v.GenericSchema<unknown, PageSource> = v.object({
  items: v.array(SourceSchema),
  next_cursor: v.nullish(v.string()),
})

/** Publish or submit an entry of one's own. */
export interface PublishEntry {
  /** Its categories. */
  categories?: string[]
  /** Only check it. */
  dry_run?: boolean
  /** Whether `/v0.1/servers` shows it without a key. */
  public?: boolean
  /** What people read about it, in Markdown, at most 64 KiB; a part of the version like the document. */
  readme?: string | null
  /** The entry. */
  server: unknown
}

/** What checking an entry found. */
export interface Validation {
  /** What would make it better. */
  advice: FieldError[]
  /** It cannot be published with these. */
  errors: FieldError[]
  /** Likely mistakes. */
  warnings: FieldError[]
}
export const ValidationSchema: v.GenericSchema<unknown, Validation> = v.object({
  advice: v.array(FieldErrorSchema),
  errors: v.array(FieldErrorSchema),
  warnings: v.array(FieldErrorSchema),
})

/** The answer to a publication. */
export interface Published {
  entry?: Entry | null
  /** What the check found. */
  validation: Validation
}
export const PublishedSchema: v.GenericSchema<unknown, Published> = v.object({
  entry: v.nullish(EntrySchema),
  validation: ValidationSchema,
})

/** Rate an entry. */
export interface RateEntry {
  /** 1 to 5. */
  rating: number
}

/** Review an entry: its latest version, which is the only one that an approval lets in. */
export interface ReviewEntry {
  /** `true` to approve. */
  approve: boolean
  /** Why not; needed to reject. */
  reason?: string | null
}

/** Change what we say about an entry. */
export interface UpdateEntry {
  /** Its categories. */
  categories?: string[] | null
  /** Whether `/v0.1/servers` shows it without a key. */
  public?: boolean | null
  /** Mark it verified by the caller, or take the mark away. */
  verified?: boolean | null
}

/**
 * List the categories with how many entries have each.
 * Needs: `catalog:read`.
 */
export const listCategories: Operation<{ path: undefined; query: undefined; body: undefined }, PageCategory> = /* @__PURE__ */ operation(
  'list_categories', 'GET', '/api/v1/catalog/categories', 'json', PageCategorySchema,
)

/**
 * Search and list catalog entries.
 * Needs: `catalog:read`.
 */
export const listEntries: Operation<{ path: undefined; query: {
  /** Words to look for in name, title, description and tags; small typing errors are forgiven. */
  search?: string
  /** Only this category. */
  category?: string
  /** Only entries that can run so: `npm`, `pypi`, `oci`, `remote`. */
  kind?: string
  /** Only from this source. */
  source?: string
  /** Only verified ones, or only others. */
  verified?: boolean
  /** `submitted`, `approved` or `rejected`; approved when absent. */
  review?: string
  /** `relevance` (the default with a search), `name`, `updated`, `deployments`, `rating`. */
  sort?: string
  /** How many at most, 1 to 500; 50 when absent. */
  limit?: number
  /** `next_cursor` of the page before. */
  cursor?: string
}; body: undefined }, PageEntrySummary> = /* @__PURE__ */ operation(
  'list_entries', 'GET', '/api/v1/catalog/entries', 'json', PageEntrySummarySchema,
)

/**
 * Publish an entry of one's own, or submit it for review; `dry_run` only checks it.
 * Needs: `catalog:submit`.
 */
export const publishEntry: Operation<{ path: undefined; query: undefined; body: PublishEntry }, Published> = /* @__PURE__ */ operation(
  'publish_entry', 'POST', '/api/v1/catalog/entries', 'json', PublishedSchema,
)

/**
 * Get an entry with its latest version, or the version named.
 * Needs: `catalog:read`.
 */
export const getEntry: Operation<{ path: {
  /** `namespace%2Fname` */
  name: EntryName
}; query: {
  /** This version; the latest when absent. */
  version?: string
}; body: undefined }, Entry> = /* @__PURE__ */ operation(
  'get_entry', 'GET', '/api/v1/catalog/entries/{name}', 'json', EntrySchema,
)

/**
 * Verify an entry, make it public, or choose its categories.
 * Needs: `catalog:review`.
 */
export const updateEntry: Operation<{ path: {
  /** `namespace%2Fname` */
  name: EntryName
}; query: undefined; body: UpdateEntry }, Entry> = /* @__PURE__ */ operation(
  'update_entry', 'PATCH', '/api/v1/catalog/entries/{name}', 'json', EntrySchema,
)

/**
 * Withdraw an entry that was published here. Servers deployed from it run on.
 * Needs: `catalog:review`.
 */
export const deleteEntry: Operation<{ path: {
  /** `namespace%2Fname` */
  name: EntryName
}; query: undefined; body: undefined }, undefined> = /* @__PURE__ */ operation(
  'delete_entry', 'DELETE', '/api/v1/catalog/entries/{name}', 'nothing', undefined,
)

/**
 * Rate an entry; rating again replaces one's rating.
 * Needs: `catalog:rate`.
 */
export const rateEntry: Operation<{ path: {
  /** `namespace%2Fname` */
  name: EntryName
}; query: undefined; body: RateEntry }, Entry> = /* @__PURE__ */ operation(
  'rate_entry', 'PUT', '/api/v1/catalog/entries/{name}/rating', 'json', EntrySchema,
)

/**
 * Approve or reject the latest version of a submitted entry.
 * Needs: `catalog:review`.
 */
export const reviewEntry: Operation<{ path: {
  /** `namespace%2Fname` */
  name: EntryName
}; query: undefined; body: ReviewEntry }, Entry> = /* @__PURE__ */ operation(
  'review_entry', 'POST', '/api/v1/catalog/entries/{name}/review', 'json', EntrySchema,
)

/**
 * List an entry's versions, newest first.
 * Needs: `catalog:read`.
 */
export const listEntryVersions: Operation<{ path: {
  /** `namespace%2Fname` */
  name: EntryName
}; query: undefined; body: undefined }, PageEntryVersionSummary> = /* @__PURE__ */ operation(
  'list_entry_versions', 'GET', '/api/v1/catalog/entries/{name}/versions', 'json', PageEntryVersionSummarySchema,
)

/**
 * List catalog sources.
 * Needs: `catalog:read`.
 */
export const listSources: Operation<{ path: undefined; query: undefined; body: undefined }, PageSource> = /* @__PURE__ */ operation(
  'list_sources', 'GET', '/api/v1/catalog/sources', 'json', PageSourceSchema,
)

/**
 * Add a catalog source; its first sync begins at once.
 * Needs: `catalog:manage`.
 */
export const createSource: Operation<{ path: undefined; query: undefined; body: CreateSource }, Source> = /* @__PURE__ */ operation(
  'create_source', 'POST', '/api/v1/catalog/sources', 'json', SourceSchema,
)

/**
 * Remove a catalog source with its entries.
 * Needs: `catalog:manage`.
 */
export const deleteSource: Operation<{ path: {
  name: Name
}; query: undefined; body: undefined }, undefined> = /* @__PURE__ */ operation(
  'delete_source', 'DELETE', '/api/v1/catalog/sources/{name}', 'nothing', undefined,
)

/**
 * Have a catalog source synced now; the source tells how it goes.
 * Needs: `catalog:manage`.
 */
export const syncSource: Operation<{ path: {
  name: Name
}; query: undefined; body: undefined }, Source> = /* @__PURE__ */ operation(
  'sync_source', 'POST', '/api/v1/catalog/sources/{name}/sync', 'json', SourceSchema,
)
