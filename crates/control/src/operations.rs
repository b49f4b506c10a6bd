//! What operators' tools ask a control plane: is it ready, may this caller read metrics.

use http::HeaderMap;
use toolyard_policy::Resource;
use toolyard_types::access::Action;

use crate::{Control, Result, app, auth};

impl Control {
    /// Whether requests can be served: the database answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ready(&self) -> Result<()> {
        self.store().system_read("readiness").await?.last_event().await?;
        Ok(())
    }

    /// Whether the caller may read this process's metrics: whoever may see toolboxes.
    pub async fn may_read_metrics(&self, headers: &HeaderMap) -> bool {
        match auth::authenticate(self, headers, None).await {
            Ok(caller) => app::allow(self, &caller, Action::ToolboxRead, &Resource::Organization).is_ok(),
            Err(_) => false,
        }
    }
}
