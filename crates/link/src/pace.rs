//! Bodies that must arrive at a pace: a peer that sends a head and then a byte now and again would hold a request, its
//! place and its memory for ever, while a long upload that flows must live.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long a body may be waited for: `grace` in all, and longer the more of it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Waited for whatever comes.
    pub grace: Duration,
    /// Every so many bytes are worth another second.
    pub bytes_per_second: u32,
}

impl Pace {
    fn allowed(&self, received: u64) -> Duration {
        let earned_ms = received.saturating_mul(1000) / u64::from(self.bytes_per_second.max(1));
        self.grace.saturating_add(Duration::from_millis(earned_ms))
    }
}

/// A body came too slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body came too slowly: at least {bytes_per_second} bytes a second are wanted after {} s", .grace.as_secs())]
pub struct TooSlow {
    grace: Duration,
    bytes_per_second: u32,
}

impl TooSlow {
    /// This error where it is one of the causes of another.
    #[must_use]
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref().copied())
    }
}

/// A body that fails with [`TooSlow`] when it is waited for longer than its pace allows. Only waiting counts: a reader
/// may take its time.
pub struct Paced<B> {
    body: B,
    pace: Pace,
    received: u64,
    waited: Duration,
    /// Since when, while the body is waited for.
    since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<B> Paced<B> {
    /// A body that has to keep this pace.
    pub fn new(body: B, pace: Pace) -> Self {
        Self { body, pace, received: 0, waited: Duration::ZERO, since: None, alarm: None }
    }

    /// Ready when it has been waited for too long.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let until = since + self.pace.allowed(self.received).saturating_sub(self.waited);
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if alarm.deadline() != until {
            alarm.as_mut().reset(until);
        }
        alarm.as_mut().poll(cx)
    }
}

impl<B> Body for Paced<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            ready!(this.poll_alarm(cx));
            let Pace { grace, bytes_per_second } = this.pace;
            return Poll::Ready(Some(Err(TooSlow { grace, bytes_per_second }.into())));
        };
        if let Some(since) = this.since.take() {
            this.waited += since.elapsed();
        }
        if let Some(Ok(frame)) = &frame {
            let bytes = frame.data_ref().map_or(0, Buf::remaining);
            this.received = this.received.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};

    const PACE: Pace = Pace { grace: Duration::from_secs(10), bytes_per_second: 100 };

    /// A body of `chunks` of so many bytes, one every `every`.
    fn dripping(chunks: usize, bytes: usize, every: Duration) -> impl Body<Data = Bytes, Error = BoxError> + Unpin {
        let stream = futures_util::stream::unfold(0, move |sent| async move {
            if sent == chunks {
                return None;
            }
            tokio::time::sleep(every).await;
            Some((Ok(Frame::data(Bytes::from(vec![b'x'; bytes]))), sent + 1))
        });
        StreamBody::new(Box::pin(stream))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_flows_may_take_as_long_as_it_needs() {
        let body = Paced::new(dripping(600, 200, Duration::from_secs(1)), PACE);
        assert_eq!(body.collect().await.expect("it lives").to_bytes().len(), 120_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_or_stops_is_given_up() {
        for (bytes, limit) in [(1, 12), (0, 11)] {
            let began = Instant::now();
            let error = Paced::new(dripping(600, bytes, Duration::from_secs(1)), PACE).collect().await.err();
            assert!(TooSlow::of(&*error.expect("it is given up")).is_some());
            assert!(began.elapsed() <= Duration::from_secs(limit), "{:?}", began.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_may_take_its_time() {
        let mut body = Paced::new(dripping(3, 1, Duration::from_secs(1)), PACE);
        while let Some(frame) = body.frame().await {
            frame.expect("a frame");
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
    }
}
