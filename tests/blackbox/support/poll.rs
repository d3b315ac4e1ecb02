//! Waiting for what must come to be, with a bound and without a guess at how long it takes.

use std::thread;
use std::time::{Duration, Instant};

/// Asks until the answer is `Ok`.
///
/// # Panics
/// It is not within `within`; the panic says `what` was awaited, and the last answer.
pub(crate) fn until<T>(
    what: &str,
    within: Duration,
    mut ask: impl FnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(why) => {
                assert!(start.elapsed() < within, "not within {within:?}: {what}: {why}");
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}
