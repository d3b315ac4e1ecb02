//! Transcripts: what a real redis-server answered, asked again of our commands.
//!
//! `transcripts/transcribe.py` wrote the replies, so nobody's memory of Redis is trusted. Moments
//! in them lie far off, and only whole seconds are asked back, so the clocks need not agree.

use crate::resp::reply::Protocol;

use super::model::{Model, unescape, words};

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
            assert_eq!(
                String::from_utf8_lossy(&reply),
                String::from_utf8_lossy(&expected),
                "line {}: {line}",
                number + 1
            );
        }
    }
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
