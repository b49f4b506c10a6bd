//! A future that goes on at once where it wakes itself.
//!
//! A connection's task reads a request's body and hands it to the handler, which it polls itself; taking the body tells
//! the reader that there is room, and so the task wakes the task that is running. To the runtime that is new work, for
//! which it wakes another worker: on an idle machine this costs more than the whole request. Here it is one more poll.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// How often in a row; then others have their turn.
const ROUNDS: usize = 4;

const IDLE: u8 = 0;
const POLLING: u8 = 1;
const WOKEN: u8 = 2;

#[derive(Default)]
struct Inner {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // While it is being polled whoever polls looks again; else its task is woken.
        if self.state.compare_exchange(POLLING, WOKEN, Ordering::SeqCst, Ordering::SeqCst) == Err(IDLE) {
            self.task.wake();
        }
    }
}

/// See the module.
pub(crate) struct Inline<F> {
    future: Pin<Box<F>>,
    inner: Arc<Inner>,
    waker: Waker,
}

impl<F: Future> Inline<F> {
    pub(crate) fn new(future: F) -> Self {
        let inner = Arc::<Inner>::default();
        Self { future: Box::pin(future), waker: inner.clone().into(), inner }
    }
}

impl<F: Future> Future for Inline<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        this.inner.task.register(cx.waker());
        for _ in 0..ROUNDS {
            // A swap: what is polled must not be read before it.
            this.inner.state.swap(POLLING, Ordering::SeqCst);
            if let Poll::Ready(output) = this.future.as_mut().poll(&mut Context::from_waker(&this.waker)) {
                return Poll::Ready(output);
            }
            if this.inner.state.compare_exchange(POLLING, IDLE, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                return Poll::Pending;
            }
        }
        this.inner.state.store(IDLE, Ordering::SeqCst);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Wakes itself `times`, then is ready.
    fn restless(mut times: usize) -> impl Future<Output = ()> {
        std::future::poll_fn(move |cx| {
            if times == 0 {
                return Poll::Ready(());
            }
            times -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    #[test]
    fn what_wakes_itself_is_polled_again_without_waking_its_task_until_others_have_their_turn() {
        let counted = Arc::<Counted>::default();
        let waker = Waker::from(counted.clone());
        let mut cx = Context::from_waker(&waker);
        let poll = |times: usize, cx: &mut Context<'_>| Pin::new(&mut Inline::new(restless(times))).poll(cx);
        assert!(poll(ROUNDS - 1, &mut cx).is_ready());
        assert_eq!(counted.0.load(Ordering::SeqCst), 0);
        assert!(poll(ROUNDS, &mut cx).is_pending());
        assert_eq!(counted.0.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_wake_from_elsewhere_is_never_lost() {
        let work = async {
            for _ in 0..2_000 {
                let (sender, receiver) = tokio::sync::oneshot::channel();
                tokio::spawn(async move { sender.send(()) });
                receiver.await.expect("sent");
            }
        };
        let done = tokio::spawn(Inline::new(work));
        tokio::time::timeout(Duration::from_secs(30), done).await.expect("it does not hang").expect("no panic");
    }
}
