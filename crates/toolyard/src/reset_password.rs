//! `toolyard reset-password`: the way back in for whoever has the host but no password any more.

use std::path::Path;
use std::process::ExitCode;

use toolyard_store::Store;
use toolyard_types::Clock;

use crate::agent::chain;
use crate::cli::EXIT_CONFIG;
use crate::config::{self, Overrides};
use crate::first_sign_in::First;
use crate::serve;

/// Gives the member of `email`, or the first owner, a new password, and shows it like that of a first start.
pub(crate) async fn main(overrides: &Overrides, email: Option<&str>) -> ExitCode {
    let settings = match config::load(&config::process_environment(), Path::new("."), overrides) {
        Ok(loaded) => loaded.settings,
        Err(error) => {
            error.0.iter().for_each(|problem| eprintln!("toolyard: {problem}"));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let reset = async {
        let location = serve::location(&settings);
        let options = serve::store_options(&settings, true);
        let store = Store::open_with(&location, Clock::system(), options).await.map_err(|error| chain(&error))?;
        let reset = toolyard_control::reset_password(&store, email).await.map_err(|error| chain(&error));
        store.close().await;
        let reset = reset?;
        let url = settings.public_url.clone().unwrap_or_else(|| format!("http://{}", settings.listen));
        println!("a new password was set; the member's sessions have ended");
        First { url: &url, sign_in: Some(reset), key: None }.show(&settings.data_dir)
    };
    match reset.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("toolyard: {problem}");
            ExitCode::FAILURE
        }
    }
}
