//! Transcripts: what a real redis-server answered, asked again of our commands.
//!
//! `transcripts/transcribe.py` wrote the replies, so nobody's memory of Redis is trusted. Moments
//! in them lie far off, and only whole seconds are asked back, so the clocks need not agree.
//!
//! Hashes and sets have no order, and ours is another than Redis's: what lists them is compared
//! sorted. So is what walks over a sorted set in the order of hashes, or by chance.

use crate::resp::reply::Protocol;

use super::model::{Model, after_reply, unescape, words};

/// Runs a transcript and says where the replies part.
fn replay(story: &str) {
    let mut model = Model::new();
    let mut lines = story.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        if line == "@resp3" {
            model.protocol = Protocol::Resp3;
        } else if !line.is_empty() && !line.starts_with('#') {
            let (_, expected) = lines.next().expect("a reply follows its request");
            let request = words(line);
            let request: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
            let reply = model.run(&request);
            let expected = unescape(expected.strip_prefix("  ").expect("replies are indented"));
            let name = request[0].to_ascii_uppercase();
            let [reply, expected] = [reply, expected].map(|reply| sorted(&name, reply));
            assert_eq!(
                String::from_utf8_lossy(&reply),
                String::from_utf8_lossy(&expected),
                "line {}: {line}",
                number + 1
            );
        }
    }
}

/// The reply of a command whose reply has no order, sorted; any other as it is.
fn sorted(command: &[u8], reply: Vec<u8>) -> Vec<u8> {
    // How many replies belong together, and where the list is: at the top, or behind a cursor.
    let (together, is_behind) = match command {
        b"HGETALL" => (2, false),
        b"HKEYS" | b"HVALS" | b"SMEMBERS" | b"SINTER" | b"SUNION" | b"SDIFF" => (1, false),
        b"SPOP" | b"SRANDMEMBER" | b"HRANDFIELD" | b"ZRANDMEMBER" if reply[0] != b'$' => (1, false),
        b"HSCAN" | b"ZSCAN" => (2, true),
        b"SSCAN" => (1, true),
        _ => return reply,
    };
    if reply[0] == b'-' {
        return reply;
    }
    let inner = after_line(&reply);
    let mut rest = if is_behind { after_line(after_reply(inner)) } else { inner };
    let head = &reply[..reply.len() - rest.len()];
    let mut items = Vec::new();
    while !rest.is_empty() {
        let behind = (0..together).fold(rest, |rest, _| after_reply(rest));
        items.push(&rest[..rest.len() - behind.len()]);
        rest = behind;
    }
    items.sort_unstable();
    [head, &items.concat()].concat()
}

/// What follows the first line.
fn after_line(bytes: &[u8]) -> &[u8] {
    let line = bytes.windows(2).position(|pair| pair == b"\r\n").expect("a line");
    &bytes[line + 2..]
}

#[test]
fn strings() {
    replay(include_str!("transcripts/strings.txt"));
}

#[test]
fn counters() {
    replay(include_str!("transcripts/counters.txt"));
}

#[test]
fn keys() {
    replay(include_str!("transcripts/keys.txt"));
}

#[test]
fn lcs() {
    replay(include_str!("transcripts/lcs.txt"));
}

#[test]
fn zsets() {
    replay(include_str!("transcripts/zsets.txt"));
}

#[test]
fn lists() {
    replay(include_str!("transcripts/lists.txt"));
}

#[test]
fn commands_that_wait() {
    replay(include_str!("transcripts/waiting.txt"));
}

#[test]
fn sorting() {
    replay(include_str!("transcripts/sort.txt"));
}

#[test]
fn random_requests_of_lists() {
    replay(include_str!("transcripts/random_lists.txt"));
}

#[test]
fn random_requests() {
    replay(include_str!("transcripts/random.txt"));
}

#[test]
fn bitmaps() {
    replay(include_str!("transcripts/bitmaps.txt"));
}

#[test]
fn hyperloglogs() {
    replay(include_str!("transcripts/hyperloglogs.txt"));
}

#[test]
fn restore() {
    replay(include_str!("transcripts/restore.txt"));
}

#[test]
fn random_requests_of_bitmaps() {
    replay(include_str!("transcripts/random_bits.txt"));
}

#[test]
fn random_requests_of_sorted_sets() {
    replay(include_str!("transcripts/random_zsets.txt"));
}

#[test]
fn hashes() {
    replay(include_str!("transcripts/hashes.txt"));
}

#[test]
fn random_requests_of_hashes() {
    replay(include_str!("transcripts/random_hashes.txt"));
}

#[test]
fn sets() {
    replay(include_str!("transcripts/sets.txt"));
}

#[test]
fn random_requests_of_sets() {
    replay(include_str!("transcripts/random_sets.txt"));
}

#[test]
fn keys_of_every_type() {
    replay(include_str!("transcripts/kinds.txt"));
}
