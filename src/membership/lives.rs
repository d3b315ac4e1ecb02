//! Which lives of which nodes have been met, and whether a node has forgotten one of its own (pure).
//!
//! A node can lose its folder, or get an older copy of it in its place, and cannot know that by
//! itself. So every start draws a random *mark*, which the folder keeps, and others remember the
//! last start of the node that they met. When they meet again they name it:
//!
//! ```text
//!              the folder's starts           a peer: "I met your start 3, marked 5c"
//!   as it was  1:a7  2:19  3:5c  4:f0        3 is known: all is well
//!   wiped      1:e0                          3 is not: the next life begins at 4
//!   older      1:a7  2:19  3:d1  4:08        3 is another one: the next life begins at 5
//! ```
//!
//! Numbers alone would not do: a folder that lost its later starts may have been started on again,
//! unheard, until its number was above all that is remembered.
//!
//! What others say of a third node's lives is believed where nothing is known: a node that has lost
//! its own memory hears of everybody from the first that it meets. It never replaces what was met,
//! for the third node may not have been asked about that.
//!
//! Invariant: a start is met only when the node that lives it has seen what is remembered of it,
//! and found nothing there that it had forgotten.

use std::collections::{BTreeMap, VecDeque};

use crate::base::id::{Boot, NodeId};
use crate::base::wire::{Cursor, Put, WireError};

/// Marks that a folder keeps. A peer that was away for more starts than that is not asked about.
pub const MARKS_MAX: usize = 256;

/// One life of a node, as others know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Met {
    /// How often its folder had been started on, that time included.
    pub start: u32,
    /// Its boot; the highest that was heard of, if that is another life's.
    pub boot: Boot,
    /// What the start drew.
    pub mark: u64,
}

/// The starts of one node that its own folder knows of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Starts {
    /// The first whose mark is kept. What was before is known, or lost and mended.
    first: u32,
    marks: VecDeque<u64>,
}

impl Starts {
    /// Those of a folder that was started on so often, and kept no marks.
    pub fn unmarked(starts: u32) -> Starts {
        Starts { first: starts.saturating_add(1), marks: VecDeque::new() }
    }

    /// Those from `first` on, with these marks; the last that can be kept of them.
    pub fn marked(first: u32, marks: impl IntoIterator<Item = u64>) -> Starts {
        let mut starts = Starts { first, marks: marks.into_iter().collect() };
        starts.bound();
        starts
    }

    /// The first whose mark is kept, and the marks from there on.
    pub fn kept(&self) -> (u32, impl Iterator<Item = u64> + '_) {
        (self.first, self.marks.iter().copied())
    }

    /// The number of the last one.
    pub fn last(&self) -> u32 {
        (self.first - 1).saturating_add(self.marks.len() as u32)
    }

    /// The mark of the last one; 0 if it has none.
    pub fn mark(&self) -> u64 {
        self.marks.back().copied().unwrap_or(0)
    }

    /// The folder is started on.
    pub fn begin(&mut self, mark: u64) {
        self.marks.push_back(mark);
        self.bound();
    }

    /// A life that others have met is not among these: another begins, of which nobody can have
    /// heard. What was before it need not be known any more.
    pub fn begin_behind(&mut self, met: &Met, mark: u64) {
        *self = Starts::marked(self.last().max(met.start).saturating_add(1), [mark]);
    }

    /// Whether the folder, which lives its life `boot` now, knows of a life that somebody has met.
    pub fn know(&self, boot: Boot, met: &Met) -> bool {
        let at = met.start.checked_sub(self.first);
        let known = at.is_none_or(|at| self.marks.get(at as usize) == Some(&met.mark));
        known && met.boot <= boot
    }

    fn bound(&mut self) {
        let over = self.marks.len().saturating_sub(MARKS_MAX);
        self.marks.drain(..over);
        self.first += over as u32;
    }
}

/// What a node knows of all nodes' lives.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lives {
    met: BTreeMap<NodeId, Met>,
}

impl Lives {
    /// Whether none was ever met.
    pub fn is_empty(&self) -> bool {
        self.met.is_empty()
    }

    /// What is known of a node.
    pub fn of(&self, node: NodeId) -> Option<&Met> {
        self.met.get(&node)
    }

    /// All of it, in the order of the nodes.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Met)> {
        self.met.iter().map(|(&node, met)| (node, met))
    }

    /// A node was met in this life, and knows what was remembered of it. Whether that is news.
    pub fn meet(&mut self, node: NodeId, met: Met) -> bool {
        let boot = self.of(node).map_or(met.boot, |known| known.boot.max(met.boot));
        let met = Met { boot, ..met };
        self.met.insert(node, met) != Some(met)
    }

    /// Somebody else says what it knows, to the node `me`. Whether that is news.
    pub fn hear(&mut self, me: NodeId, others: &Lives) -> bool {
        let before = self.clone();
        for (node, said) in others.iter().filter(|&(node, _)| node != me) {
            let known = self.met.entry(node).or_insert(*said);
            known.boot = known.boot.max(said.boot);
        }
        *self != before
    }

    /// Appends it as it travels: `count u16 │ { node u16 · start u32 · boot u16 · mark u64 } …`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16(self.met.len() as u16);
        for (node, Met { start, boot, mark }) in self.iter() {
            out.put_u16(node.0);
            out.put_u32(*start);
            out.put_u16(boot.0);
            out.put_u64(*mark);
        }
    }

    /// Reads what was encoded.
    ///
    /// # Errors
    /// It ends too early.
    pub fn decode(at: &mut Cursor<'_>) -> Result<Lives, WireError> {
        let mut met = BTreeMap::new();
        for _ in 0..at.u16()? {
            let node = NodeId(at.u16()?);
            met.insert(node, Met { start: at.u32()?, boot: Boot(at.u16()?), mark: at.u64()? });
        }
        Ok(Lives { met })
    }
}

impl FromIterator<(NodeId, Met)> for Lives {
    fn from_iter<T: IntoIterator<Item = (NodeId, Met)>>(all: T) -> Lives {
        Lives { met: all.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(9);

    fn met(start: u32, boot: u16, mark: u64) -> Met {
        Met { start, boot: Boot(boot), mark }
    }

    #[test]
    fn a_folder_knows_its_own_starts_and_no_others() {
        let mut starts = Starts::unmarked(0);
        (1..=4).for_each(|start| starts.begin(start * 11));
        assert_eq!((starts.last(), starts.mark()), (4, 44));
        for start in 1..=4 {
            assert!(starts.know(Boot(2), &met(start, 2, u64::from(start) * 11)));
            assert!(!starts.know(Boot(2), &met(start, 2, 7)), "another folder's start {start}");
        }
        assert!(!starts.know(Boot(2), &met(5, 2, 55)), "a start that is lost");
        assert!(!starts.know(Boot(2), &met(3, 3, 33)), "a boot that is lost");
    }

    #[test]
    fn a_number_that_has_overtaken_the_memory_of_others_helps_nobody() {
        let mut copy = Starts::marked(1, [10, 20]);
        (0..9).for_each(|again| copy.begin(100 + again));
        let remembered = met(3, 1, 30);
        assert!(copy.last() > remembered.start && !copy.know(Boot(9), &remembered));
    }

    #[test]
    fn a_life_begun_behind_a_lost_one_answers_for_all_before() {
        let mut starts = Starts::marked(1, [1]);
        starts.begin_behind(&met(8, 5, 80), 90);
        assert_eq!((starts.last(), starts.mark()), (9, 90));
        for start in 0..9 {
            assert!(starts.know(Boot(6), &met(start, 5, 7)), "start {start} is behind it");
        }
        assert!(starts.know(Boot(6), &met(9, 6, 90)) && !starts.know(Boot(6), &met(9, 6, 7)));
        starts.begin_behind(&met(3, 7, 30), 100);
        assert_eq!((starts.last(), starts.mark()), (10, 100), "it never goes back");
    }

    #[test]
    fn only_the_last_marks_are_kept() {
        let mut starts = Starts::unmarked(40);
        (0..MARKS_MAX as u64 + 5).for_each(|mark| starts.begin(mark));
        let (first, marks) = starts.kept();
        assert_eq!((first, marks.count(), starts.last()), (46, MARKS_MAX, 301));
        assert!(starts.know(Boot(0), &met(45, 0, 999)) && !starts.know(Boot(0), &met(46, 0, 999)));
        let (first, marks) = starts.kept();
        assert_eq!(Starts::marked(first, marks), starts.clone());
    }

    #[test]
    fn what_was_met_is_not_replaced_by_what_was_heard() {
        let mut lives = Lives::default();
        assert!(lives.is_empty() && lives.meet(NodeId(1), met(3, 2, 30)));
        assert!(!lives.meet(NodeId(1), met(3, 2, 30)));
        let others = [(NodeId(1), met(7, 4, 70)), (NodeId(2), met(5, 5, 50)), (ME, met(6, 6, 60))];
        let others = Lives::from_iter(others);
        assert!(lives.hear(ME, &others) && !lives.hear(ME, &others));
        assert_eq!(lives.of(NodeId(1)), Some(&met(3, 4, 30)), "its own mark, and the highest boot");
        assert_eq!((lives.of(NodeId(2)), lives.of(ME)), (Some(&met(5, 5, 50)), None));
        assert!(lives.meet(NodeId(1), met(8, 1, 80)));
        assert_eq!(lives.of(NodeId(1)), Some(&met(8, 4, 80)));
    }

    #[test]
    fn it_is_read_as_it_was_written_and_no_other() {
        let lives = Lives::from_iter([(NodeId(1), met(3, 2, 30)), (NodeId(700), met(5, 6, 50))]);
        let mut bytes = Vec::new();
        lives.encode(&mut bytes);
        assert_eq!(bytes[..2], [2, 0]);
        assert_eq!(bytes.len(), 2 + 2 * 16);
        assert_eq!(Lives::decode(&mut Cursor::new(&bytes)), Ok(lives));
        for cut in 0..bytes.len() {
            assert!(Lives::decode(&mut Cursor::new(&bytes[..cut])).is_err());
        }
    }
}
