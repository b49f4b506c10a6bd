//! Chores of the repository: `cargo xtask <chore>`.

mod budgets;
mod catalog_proof;
mod edges;
mod generated;

use anyhow::{Result, bail};

const USAGE: &str = "cargo xtask <chore>

  budgets           fail when a page of the built console loads more than it may
  budgets --report  write what each page loads to docs/reports/bundle.md, too
  catalog-proof [--direct] [--binary PATH] [ENTRY...]
                    start every curated npm and PyPI server and write the report
  edges             compare the dependencies between our crates with what is allowed
  generate          write the generated files (.env.example, reference pages, OpenAPI)
  generate --check  fail when a generated file is out of date";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["budgets"] => budgets::check(),
        ["budgets", "--report"] => budgets::report(),
        ["catalog-proof", rest @ ..] => catalog_proof::run(rest),
        ["edges"] => edges::check(),
        ["generate"] => generated::write(),
        ["generate", "--check"] => generated::check(),
        _ => bail!("{USAGE}"),
    }
}
