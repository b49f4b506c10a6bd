/** Text as a hostile publisher or server would write it. Anything of it that ran would set `__executed`. */
export const HOSTILE: Record<string, { text: string; plain: boolean }> = {
  ansi: { text: '\u001b[31mred\u001b[0m\u001b]8;;javascript:globalThis.__executed=1\u0007', plain: false },
  html: {
    text: '<img src=x onerror="globalThis.__executed=1"><svg onload="globalThis.__executed=1">',
    plain: true,
  },
  script: { text: '<script>globalThis.__executed=1</script><iframe srcdoc="<b>x"></iframe>', plain: true },
  markdown: {
    text: '[press](javascript:globalThis.__executed=1) ![x](x"onerror="globalThis.__executed=1)',
    plain: true,
  },
  bidi: { text: '\u202egnp.exe\u202c \u200b\u2066x', plain: false },
}

/** A `server.json` with the text in every field that the API takes it in. */
export function hostileEntry(kind: string): Record<string, unknown> {
  const { text, plain } = HOSTILE[kind] ?? { text: '', plain: true }
  return {
    name: `test.hostile/${kind}`,
    title: text,
    description: text,
    version: '1.0.0',
    websiteUrl: 'javascript:globalThis.__executed=1',
    repository: { url: 'javascript:globalThis.__executed=1', source: text },
    icons: [{ src: 'javascript:globalThis.__executed=1' }],
    _meta: {
      'test.hostile/readme': { readme: `# ${text}\n\n${text}\n\n- [x](javascript:globalThis.__executed=1)` },
    },
    packages: [
      {
        registryType: 'npm',
        identifier: '@modelcontextprotocol/server-everything',
        version: '2026.8.31',
        transport: { type: 'stdio' },
        environmentVariables: [
          {
            name: 'HOSTILE',
            description: text,
            placeholder: text,
            // The API refuses values with hidden characters.
            ...(plain ? { default: text, choices: [text, 'harmless'] } : {}),
          },
        ],
      },
    ],
  }
}

/** Whether hostile text ran, or became an element or a link; runs in the page. */
export function harm(): string[] {
  const found: string[] = []
  if (Reflect.has(globalThis, '__executed')) found.push('script ran')
  for (const element of document.querySelectorAll('iframe,object,embed,[onerror],[onload],img[src="x"]')) {
    found.push(element.outerHTML)
  }
  for (const link of document.querySelectorAll('[href],[src],[action],[formaction]')) {
    for (const name of ['href', 'src', 'action', 'formaction']) {
      const value = link.getAttribute(name) ?? ''
      if (/^\s*(?:javascript|data:text|vbscript)/i.test(value)) found.push(link.outerHTML)
    }
  }
  return found
}
