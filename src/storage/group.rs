//! Who writes for whom: of the sessions that are ready together, one writes for all.
//!
//! ```text
//!  first to come ──► leads ── the others run ──► write(2) ──► wakes them ──► replies
//!  the others    ──► leave their wakers ─────────────────────────┘
//! ```
//!
//! So a session is looked at twice a request, once to run it and once to answer it, however many
//! come together. Sessions of one thread form a group: whoever leads waits for what its own thread
//! has ready, never for a thread that is busy with something else.
//!
//! Invariant: whoever left a waker is woken when the lead is given up, however that happens. So a
//! leader that failed or was cancelled holds nobody up.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};

use parking_lot::Mutex;

/// Groups of a log. Threads beyond that share.
const GROUPS: usize = 16;

#[derive(Debug, Default)]
struct Group {
    is_led: bool,
    waiting: Vec<Waker>,
}

/// A group in cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Aside(Mutex<Group>);

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Groups([Aside; GROUPS]);

/// The lead of a group, until it is dropped.
#[derive(Debug)]
pub(super) struct Lead<'a>(&'a Mutex<Group>);

impl Groups {
    /// Waits for the lead of this thread's group, and then until everybody who is ready here has
    /// come. `None`: `is_done`, nobody needs to lead.
    pub(super) async fn lead(&self, is_done: impl Fn() -> bool) -> Option<Lead<'_>> {
        let Aside(group) = &self.0[seat() % GROUPS];
        let lead = poll_fn(|context| {
            if is_done() {
                return Poll::Ready(None);
            }
            let mut led = group.lock();
            if led.is_led {
                led.waiting.push(context.waker().clone());
                return Poll::Pending;
            }
            led.is_led = true;
            Poll::Ready(Some(Lead(group)))
        });
        let lead = lead.await?;
        go_last().await;
        Some(lead)
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut group = self.0.lock();
        group.is_led = false;
        group.waiting.drain(..).for_each(Waker::wake);
    }
}

/// Goes to the end of this thread's queue. `tokio::task::yield_now` asks the system for new events
/// first, which costs more than those that it finds save.
async fn go_last() {
    let mut has_gone = false;
    poll_fn(|context| {
        if has_gone {
            return Poll::Ready(());
        }
        has_gone = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The number of this thread among those that asked.
fn seat() -> usize {
    static SEATS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SEAT: usize = SEATS.fetch_add(1, Ordering::Relaxed);
    }
    SEAT.with(|seat| *seat)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::task::{Context, Wake};

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Bell {
        fn rung(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_pending<T>(poll: &Poll<T>) -> bool {
        matches!(poll, Poll::Pending)
    }

    #[test]
    fn one_leads_once_the_others_have_come_and_they_are_woken() {
        let (groups, done) = (Groups::default(), AtomicBool::new(false));
        let is_done = || done.load(Ordering::Relaxed);
        let bells = [Arc::new(Bell::default()), Arc::new(Bell::default())];
        let wakers = bells.clone().map(Waker::from);
        let [mut first, mut second] = wakers.each_ref().map(Context::from_waker);
        let mut leader = pin!(groups.lead(is_done));
        let mut other = pin!(groups.lead(is_done));
        assert!(is_pending(&leader.as_mut().poll(&mut first)));
        assert_eq!(bells[0].rung(), 1, "it goes to the end of the queue");
        assert!(is_pending(&other.as_mut().poll(&mut second)));
        let Poll::Ready(lead) = leader.poll(&mut first) else { panic!("nothing is ahead of it") };
        assert!(lead.is_some());
        assert!(is_pending(&other.as_mut().poll(&mut second)), "one leads");
        done.store(true, Ordering::Relaxed);
        assert_eq!(bells[1].rung(), 0);
        drop(lead);
        assert!(bells[1].rung() > 0);
        let Poll::Ready(lead) = other.poll(&mut second) else { panic!("all is done") };
        assert!(lead.is_none());
    }

    #[test]
    fn the_lead_of_one_who_was_cancelled_goes_to_the_next() {
        let groups = Groups::default();
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(bell.clone());
        let mut context = Context::from_waker(&waker);
        let mut other = pin!(groups.lead(|| false));
        {
            let mut leader = pin!(groups.lead(|| false));
            assert!(is_pending(&leader.as_mut().poll(&mut context)));
            assert!(is_pending(&other.as_mut().poll(&mut context)));
            assert_eq!(bell.rung(), 1);
        }
        assert_eq!(bell.rung(), 2, "the other looks again");
        assert!(is_pending(&other.as_mut().poll(&mut context)), "it goes last, too");
        let Poll::Ready(lead) = other.poll(&mut context) else { panic!("nobody else leads") };
        assert!(lead.is_some());
    }
}
