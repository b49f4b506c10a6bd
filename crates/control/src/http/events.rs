//! Live events, as server-sent events.
//!
//! A stream first reads the outbox after the last number that its reader saw, if it saw one; then it sends what the one
//! reader of the outbox hands on, and of both what its reader may hear ([`Listener`]). It asks again who is there when
//! something about access happened, and every now and then, so that a stream ends with the key or session that opened it.
//! What happens to others is no reason to ask many times a second: until it has asked it sends nothing, and it asks at most
//! once a second, a few streams at a time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use toolyard_policy::Resource;
use toolyard_types::Code;
use toolyard_types::access::Action;
use toolyard_types::api::system::Event;
use utoipa_axum::routes;

use super::extract::Query;
use super::guard::{Access, Routes};
use crate::app::events::Listener;
use crate::events::Heard;
use crate::limits::Share;
use crate::{Caller, Control, ControlError, Result, app, auth};

/// Events read and sent at once.
const PAGE: u32 = 100;
/// How long the caller may be unchecked, and a dead connection unnoticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long it is not asked again after it was asked.
const CHECK_PAUSE: Duration = Duration::from_secs(1);

/// What a stream of events is allowed by.
const EVENTS: (Action, &Resource) = (Action::EventRead, &Resource::Organization);

pub(super) fn routes() -> Routes {
    Routes::new().guarded(Access::Action(Action::EventRead), routes!(follow_events))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct EventQuery {
    /// Continue after this event, as the header `Last-Event-ID` does.
    after: Option<i64>,
}

/// Follow what happens, from now on or after the last event seen. Everybody hears of what they may read: a server's events
/// need `server:read`, a credential's `credential:read`, and so on; those about keys and members are also for who reads the
/// audit log, and one's own for oneself. A key narrowed to servers and toolsets hears only of these.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", params(EventQuery,
        ("last-event-id" = Option<i64>, Header, description = "continue after this event")),
    responses((status = 200, content((Event = "text/event-stream")))))]
async fn follow_events(
    State(control): State<Control>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<EventQuery>,
) -> Result<Response> {
    let share = control.event_streams().take(&caller, "event streams and followed logs")?;
    let after = last_event_id(&headers)?.or(query.after);
    // Listen before the answer begins: what happens from then on is not missed, however late its body is read.
    let followed = control.follow_events(caller.organization);
    let stream = Sse::new(events(control, caller, headers, after, (followed, share)));
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

fn events(
    control: Control,
    caller: Caller,
    headers: HeaderMap,
    after: Option<i64>,
    (followed, share): ((i64, Receiver<Arc<Heard>>), Share),
) -> impl Stream<Item = Result<SseEvent, Infallible>> {
    async_stream::stream! {
        let _share = share;
        let mut listener = Listener::new(caller);
        let (reached, mut heard) = followed;
        let mut sent = after.unwrap_or(reached);
        let mut behind = sent < reached;
        let mut checked = Instant::now();
        loop {
            if behind {
                let Ok(page) = read(&control, listener.caller(), sent).await else { return };
                behind = page.len() == usize::try_from(PAGE).unwrap_or(usize::MAX);
                for event in page {
                    sent = event.sequence;
                    if listener.hears(&control, &event) {
                        yield Ok(write(&event));
                    }
                }
                if checked.elapsed() < KEEP_ALIVE {
                    continue;
                }
            }
            let event = tokio::select! {
                () = control.stopping().cancelled() => return,
                event = heard.recv(), if !behind => match event {
                    Ok(event) => Some(event),
                    // It was too slow; what it missed is in the outbox.
                    Err(RecvError::Lagged(_)) => {
                        behind = true;
                        continue;
                    }
                    Err(RecvError::Closed) => return,
                },
                () = tokio::time::sleep_until(checked + KEEP_ALIVE) => None,
            };
            if event.as_ref().is_none_or(|event| event.is_about_access()) {
                let asked = still_allowed(&control, listener.caller(), &headers, &mut checked, EVENTS).await;
                let Ok(now) = asked else { return };
                // They may have another role by now.
                listener = Listener::new(now);
            }
            if let Some(event) = event.filter(|event| event.sequence > sent) {
                sent = event.sequence;
                if listener.hears(&control, &event) {
                    yield Ok(write(&event));
                }
            }
        }
    }
}

/// Asks again whether a caller may do this, when it was not asked just now. Gives the caller as they are now.
///
/// # Errors
/// When they may not, nobody can say, or everything stops.
async fn still_allowed(
    control: &Control,
    caller: &Caller,
    headers: &HeaderMap,
    checked: &mut Instant,
    (action, resource): (Action, &Resource),
) -> Result<Caller> {
    tokio::select! {
        () = tokio::time::sleep_until(*checked + CHECK_PAUSE) => {}
        () = control.stopping().cancelled() => {
            return Err(ControlError::problem(Code::ShuttingDown, "Toolyard is shutting down"));
        }
    }
    let _turn = control.turn_to_catch_up().await;
    // What happens from now on is another reason to ask.
    *checked = Instant::now();
    let now = auth::look_again(control, headers, caller.request_id.clone()).await?;
    app::allow(control, &now, action, resource)?;
    Ok(now)
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
    let (_, mut heard) = control.follow_events(caller.organization);
    // It was allowed just now; what has happened since then may not have been heard.
    let mut checked = Instant::now();
    loop {
        if still_allowed(&control, &caller, &headers, &mut checked, (action, &resource)).await.is_err() {
            return;
        }
        let about_access = async {
            loop {
                match heard.recv().await {
                    Ok(event) if event.is_about_access() => return true,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => return true,
                    Err(RecvError::Closed) => return false,
                }
            }
        };
        tokio::select! {
            () = control.stopping().cancelled() => return,
            goes_on = about_access => if !goes_on { return },
            () = tokio::time::sleep(KEEP_ALIVE) => {}
        }
    }
}

async fn read(control: &Control, caller: &Caller, after: i64) -> Result<Vec<Heard>> {
    let _turn = control.turn_to_catch_up().await;
    let tx = control.store().org_read(caller.organization).await?;
    Ok(tx.events_after(after, PAGE).await?.into_iter().map(Heard::new).collect())
}

fn write(event: &Heard) -> SseEvent {
    SseEvent::default().id(event.sequence.to_string()).event(&event.kind).data(&event.text)
}
