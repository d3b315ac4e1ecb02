//! A request of several parts, whose replies become one.

use std::fmt;

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::command::spec::Merge;
use crate::peer::message::FwdStatus;
use crate::resp::reply::{Protocol, Reply};

use super::batch::Origin;
use super::repair::Columns;
use super::replies::ReplyBytes;

/// How parts' replies become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rule {
    /// As the command's row says.
    Merge(Merge),
    /// The parts are arrays whose elements become one array (KEYS).
    Concat,
    /// Any part that is not null (RANDOMKEY).
    Any,
    /// The parts are arrays of numbers (KV.REPAIR, KV.DIVERGENCE).
    Columns(Columns),
}

/// The parts that have come, and who waits for the whole.
pub(super) struct Gathering {
    rule: Rule,
    protocol: Protocol,
    writes: bool,
    state: Mutex<State>,
}

struct State {
    origin: Option<Origin>,
    parts: Vec<Option<(FwdStatus, ReplyBytes)>>,
    missing: usize,
}

impl fmt::Debug for Gathering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gathering({:?})", self.rule)
    }
}

impl Gathering {
    pub(super) fn new(
        rule: Rule,
        protocol: Protocol,
        writes: bool,
        parts: usize,
        origin: Origin,
    ) -> Gathering {
        let state = Mutex::new(State {
            origin: Some(origin),
            parts: (0..parts).map(|_| None).collect(),
            missing: parts,
        });
        Gathering { rule, protocol, writes, state }
    }

    /// Takes part `index`; with the last one, the whole.
    pub(super) fn part(
        &self,
        index: usize,
        status: FwdStatus,
        reply: ReplyBytes,
    ) -> Option<(Origin, ReplyBytes)> {
        let mut state = self.state.lock();
        if state.parts[index].is_none() {
            state.parts[index] = Some((status, reply));
            state.missing -= 1;
        }
        if state.missing > 0 {
            return None;
        }
        let origin = state.origin.take()?;
        let parts = std::mem::take(&mut state.parts);
        drop(state);
        let parts = parts.iter().flatten().map(|(status, bytes)| (*status, &bytes[..]));
        let (_, whole) = Gathering::settled(self.rule, self.protocol, self.writes, parts);
        Some((origin, whole))
    }

    /// The whole of parts that have all come, and whether anything was done.
    pub(super) fn settled<'a>(
        rule: Rule,
        protocol: Protocol,
        writes: bool,
        parts: impl Iterator<Item = (FwdStatus, &'a [u8])>,
    ) -> (FwdStatus, ReplyBytes) {
        let parts: SmallVec<[(FwdStatus, &[u8]); 16]> = parts.collect();
        if let Some(failed) = failure(writes, &parts) {
            return failed;
        }
        let mut reply = Reply::new(protocol);
        merge(rule, parts.iter().map(|&(_, bytes)| bytes), parts.len(), &mut reply);
        (FwdStatus::Ok, SmallVec::from_slice(&reply.bytes))
    }
}

/// The error that the whole gets when a part failed. "Nothing was done" is only true of a write
/// if it is true of every part.
fn failure(writes: bool, parts: &[(FwdStatus, &[u8])]) -> Option<(FwdStatus, ReplyBytes)> {
    let first = parts.iter().find(|(_, bytes)| bytes.first() == Some(&b'-'))?;
    let undone = parts.iter().all(|(status, _)| *status == FwdStatus::NotRun);
    if writes && parts.len() > 1 && !undone {
        let text = b"-UNCERTAIN a part of the keys failed, the others may have been written\r\n";
        return Some((FwdStatus::Uncertain, SmallVec::from_slice(text)));
    }
    Some((first.0, SmallVec::from_slice(first.1)))
}

/// Writes the whole of `count` parts that are no errors.
pub(super) fn merge<'a>(
    rule: Rule,
    parts: impl Iterator<Item = &'a [u8]>,
    count: usize,
    reply: &mut Reply,
) {
    match rule {
        Rule::Merge(Merge::Array) => {
            reply.array(count);
            parts.for_each(|part| reply.bytes.extend_from_slice(part));
        }
        Rule::Merge(Merge::Sum) => reply.integer(parts.map(integer).sum()),
        Rule::Merge(Merge::Ok) => reply.ok(),
        Rule::Concat => {
            let parts: Vec<_> = parts.map(array).collect();
            reply.array(parts.iter().map(|(len, _)| len).sum());
            parts.iter().for_each(|(_, elements)| reply.bytes.extend_from_slice(elements));
        }
        Rule::Columns(columns) => columns.write(parts, reply),
        Rule::Any => {
            let null = |part: &&[u8]| part.starts_with(b"_") || part.starts_with(b"$-1");
            let mut parts = parts.peekable();
            let first = parts.peek().copied().unwrap_or_default();
            let found = parts.find(|part| !null(part)).unwrap_or(first);
            reply.bytes.extend_from_slice(found);
        }
    }
}

/// The number behind a reply's first byte; our own encoder wrote it.
fn integer(part: &[u8]) -> i64 {
    let digits = part.get(1..).unwrap_or_default().split(|&byte| byte == b'\r').next();
    digits
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// An array's length and its encoded elements.
fn array(part: &[u8]) -> (usize, &[u8]) {
    let end = part.iter().position(|&byte| byte == b'\n').map_or(part.len(), |at| at + 1);
    (usize::try_from(integer(part)).unwrap_or(0), &part[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(rule: Rule, writes: bool, parts: &[(FwdStatus, &[u8])]) -> String {
        let gathering = Gathering::new(
            rule,
            Protocol::Resp2,
            writes,
            parts.len(),
            Origin::Peer { peer: 0, id: 0 },
        );
        let mut last = None;
        // Backwards: parts come in any order.
        for (index, (status, bytes)) in parts.iter().enumerate().rev() {
            assert!(last.is_none());
            last = gathering.part(index, *status, SmallVec::from_slice(bytes));
        }
        String::from_utf8(last.expect("the last part completes it").1.to_vec()).unwrap()
    }

    #[test]
    fn parts_become_one_reply() {
        let ok = |bytes: &'static [u8]| (FwdStatus::Ok, bytes);
        let sum = Rule::Merge(Merge::Sum);
        assert_eq!(whole(sum, true, &[ok(b":1\r\n"), ok(b":41\r\n")]), ":42\r\n");
        let array = Rule::Merge(Merge::Array);
        assert_eq!(
            whole(array, false, &[ok(b"$1\r\na\r\n"), ok(b"$-1\r\n")]),
            "*2\r\n$1\r\na\r\n$-1\r\n"
        );
        assert_eq!(
            whole(
                Rule::Concat,
                false,
                &[ok(b"*1\r\n$1\r\na\r\n"), ok(b"*0\r\n"), ok(b"*1\r\n$1\r\nb\r\n")]
            ),
            "*2\r\n$1\r\na\r\n$1\r\nb\r\n"
        );
        assert_eq!(whole(Rule::Any, false, &[ok(b"$-1\r\n"), ok(b"$1\r\nk\r\n")]), "$1\r\nk\r\n");
        assert_eq!(whole(Rule::Any, false, &[ok(b"$-1\r\n")]), "$-1\r\n");
    }

    #[test]
    fn nothing_was_done_only_if_no_part_was() {
        let no = (FwdStatus::NotRun, &b"-NOQUORUM x\r\n"[..]);
        let done = (FwdStatus::Ok, &b"+OK\r\n"[..]);
        let rule = Rule::Merge(Merge::Ok);
        assert!(whole(rule, true, &[no, no]).starts_with("-NOQUORUM"));
        assert!(whole(rule, true, &[done, no]).starts_with("-UNCERTAIN"));
        assert!(whole(Rule::Merge(Merge::Array), false, &[done, no]).starts_with("-NOQUORUM"));
    }
}
