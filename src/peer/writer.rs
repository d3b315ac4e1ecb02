//! The sending half of a link: takes what waits in the outbox and writes it, one write(2) a flush.

use std::io::{self, IoSlice};

use smallvec::SmallVec;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::timeout;

use super::counters::Counters;
use super::frame::{self, HEAD_SIZE, Runs};
use super::outbox::{Found, Outbox};
use super::stream::Taken;

/// Most envelopes in one write: their checksums are computed before its first byte leaves, so
/// this bounds what a long queue adds to the wait.
const ENVELOPES_PER_WRITE: usize = 8;

/// Sends what is appended to `outbox` until it is closed or the connection breaks.
pub async fn write_all(
    socket: &mut OwnedWriteHalf,
    outbox: &Outbox,
    counters: &Counters,
) -> io::Result<()> {
    let mut sending = Taken::new();
    loop {
        match outbox.take(&mut sending) {
            Found::Frames => {
                for frames in &sending {
                    flush(socket, frames, counters).await?;
                }
            }
            Found::Nothing => {
                outbox.filled().await;
                // Whoever woke us is one of many that became ready together: the others append
                // first, and one write carries them all.
                tokio::task::yield_now().await;
            }
            // The receiver's clients come first.
            Found::Paced(wait) => _ = timeout(wait, outbox.filled()).await,
            Found::Closed => return Ok(()),
        }
    }
}

async fn flush(socket: &mut OwnedWriteHalf, frames: &[u8], counters: &Counters) -> io::Result<()> {
    let mut runs = Runs::of(frames);
    loop {
        let some: SmallVec<[&[u8]; ENVELOPES_PER_WRITE]> =
            runs.by_ref().take(ENVELOPES_PER_WRITE).collect();
        if some.is_empty() {
            counters.frames_out.add(runs.frames);
            return Ok(());
        }
        write_envelopes(socket, &some, counters).await?;
    }
}

async fn write_envelopes(
    socket: &mut OwnedWriteHalf,
    runs: &[&[u8]],
    counters: &Counters,
) -> io::Result<()> {
    let heads: SmallVec<[[u8; HEAD_SIZE]; ENVELOPES_PER_WRITE]> =
        runs.iter().map(|run| frame::head(run)).collect();
    let mut slices: SmallVec<[IoSlice<'_>; 2 * ENVELOPES_PER_WRITE]> = heads
        .iter()
        .zip(runs)
        .flat_map(|(head, run)| [IoSlice::new(head), IoSlice::new(run)])
        .collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        let written = socket.write_vectored(rest).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        counters.bytes_out.add(written as u64);
        counters.flushes.add(1);
        IoSlice::advance_slices(&mut rest, written);
    }
    Ok(())
}
