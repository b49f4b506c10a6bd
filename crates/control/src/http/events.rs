//! Live events, as server-sent events.
//!
//! A stream reads from the outbox after the last number it sent: catching up and following are the same. Before
//! each page it asks again who is there, so that a stream ends with the key or session that opened it.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use toolyard_policy::Resource;
use toolyard_store::OutboxEvent;
use toolyard_types::Code;
use toolyard_types::access::Action;
use toolyard_types::api::system::Event;
use utoipa_axum::routes;

use super::extract::Query;
use super::guard::{Access, Routes};
use crate::{Caller, Control, ControlError, Result, app, auth};

/// Events read and sent at once.
const PAGE: u32 = 100;
/// How long the caller may be unchecked, and a dead connection unnoticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) fn routes() -> Routes {
    Routes::new().guarded(Access::Action(Action::EventRead), routes!(follow_events))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct EventQuery {
    /// Continue after this event, as the header `Last-Event-ID` does.
    after: Option<i64>,
}

/// Follow what happens, from now on or after the last event seen. A narrowed key hears only of its own servers and
/// toolsets.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", params(EventQuery,
        ("last-event-id" = Option<i64>, Header, description = "continue after this event")),
    responses((status = 200, content((Event = "text/event-stream")))))]
async fn follow_events(
    State(control): State<Control>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<EventQuery>,
) -> Result<Response> {
    let permit = control
        .event_streams()
        .map_err(|_| ControlError::problem(Code::RateLimited, "too many event streams are open on this replica"))?;
    let after = match last_event_id(&headers)?.or(query.after) {
        Some(after) => after,
        None => newest(&control).await?,
    };
    let stream = Sse::new(events(control, caller, headers, after, permit));
    let mut response = stream.keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    // A proxy that collects an answer before it passes it on would hold events back.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<i64>> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| ControlError::field("Last-Event-ID", "must be the number of an event"))
}

async fn newest(control: &Control) -> Result<i64> {
    Ok(control.store().system_read("find where live events begin").await?.last_event().await?)
}

fn events(
    control: Control,
    caller: Caller,
    headers: HeaderMap,
    after: i64,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<SseEvent, Infallible>> {
    async_stream::stream! {
        let _permit = permit;
        let mut reached = after;
        let mut feed = control.event_feed();
        loop {
            // Marked as seen before the read: an event that comes between is not waited for.
            feed.borrow_and_update();
            let page = match still_allowed(&control, &caller, &headers).await {
                Ok(()) => read(&control, &caller, reached).await,
                Err(error) => Err(error),
            };
            let Ok(page) = page else { return };
            let more = page.len() == usize::try_from(PAGE).unwrap_or(usize::MAX);
            for event in page {
                reached = event.sequence;
                if !app::scope::includes_subject(&caller, &event.subject) {
                    continue;
                }
                yield Ok(write(event));
            }
            if !more {
                tokio::select! {
                    () = control.stopping().cancelled() => return,
                    changed = feed.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(KEEP_ALIVE) => {}
                }
            }
        }
    }
}

async fn still_allowed(control: &Control, caller: &Caller, headers: &HeaderMap) -> Result<()> {
    let now = auth::look_again(control, headers, caller.request_id.clone()).await?;
    app::allow(control, &now, Action::EventRead, &Resource::Organization)
}

/// Ends when the caller may no longer do this, or everything stops: for answers that go on for long. A revoked
/// key is noticed with its event, an ended session within [`KEEP_ALIVE`].
pub(super) async fn refused_from_now_on(
    control: Control,
    caller: Caller,
    headers: HeaderMap,
    action: Action,
    resource: Resource,
) {
    let mut feed = control.event_feed();
    loop {
        feed.borrow_and_update();
        let allowed = match auth::look_again(&control, &headers, caller.request_id.clone()).await {
            Ok(now) => app::allow(&control, &now, action, &resource),
            Err(error) => Err(error),
        };
        if allowed.is_err() {
            return;
        }
        tokio::select! {
            () = control.stopping().cancelled() => return,
            changed = feed.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(KEEP_ALIVE) => {}
        }
    }
}

async fn read(control: &Control, caller: &Caller, after: i64) -> Result<Vec<OutboxEvent>> {
    let tx = control.store().org_read(caller.organization).await?;
    Ok(tx.events_after(after, PAGE).await?)
}

fn write(event: OutboxEvent) -> SseEvent {
    let event =
        Event { sequence: event.sequence, at: event.at, kind: event.kind, subject: event.subject, data: event.data };
    let data = serde_json::to_string(&event).expect("an event is text and JSON");
    SseEvent::default().id(event.sequence.to_string()).event(event.kind).data(data)
}
