//! A survey: which replicas hold the same of a key as the one that asks. It changes nothing, so
//! it always answers, at the latest when its time is up, with those who said so by then.
//!
//! Invariant: a replica that did not say `Same` is not among those that hold the same.

use smallvec::SmallVec;

use crate::base::id::NodeId;

use super::gather::Effect;

/// See the head of this file.
#[derive(Debug)]
pub struct Survey {
    /// Who has not answered.
    waiting: SmallVec<[NodeId; 8]>,
    same: SmallVec<[NodeId; 8]>,
    done: bool,
}

impl Survey {
    /// Asks `others`; with nobody to ask it is through at once.
    pub fn start(others: &[NodeId], out: &mut Vec<Effect>) -> Survey {
        out.extend(others.iter().map(|&to| Effect::Check { to }));
        let mut survey = Survey {
            waiting: others.iter().copied().collect(),
            same: SmallVec::new(),
            done: false,
        };
        survey.finish_if_all_answered(out);
        survey
    }

    /// `from` holds the same.
    pub fn on_same(&mut self, from: NodeId, out: &mut Vec<Effect>) {
        if self.waiting.contains(&from) {
            self.same.push(from);
        }
        self.on_other(from, out);
    }

    /// `from` holds something else, does not count, or will not answer.
    pub fn on_other(&mut self, from: NodeId, out: &mut Vec<Effect>) {
        self.waiting.retain(|waiting| *waiting != from);
        self.finish_if_all_answered(out);
    }

    /// Its time is up.
    pub fn on_deadline(&mut self, out: &mut Vec<Effect>) {
        self.waiting.clear();
        self.finish_if_all_answered(out);
    }

    fn finish_if_all_answered(&mut self, out: &mut Vec<Effect>) {
        if self.waiting.is_empty() && !self.done {
            self.done = true;
            out.push(Effect::Answer);
        }
    }

    /// Who holds the same, in the order of their answers.
    pub fn same(&self) -> &[NodeId] {
        &self.same
    }

    /// Whether it has answered.
    pub fn is_done(&self) -> bool {
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    #[test]
    fn it_answers_once_when_all_have() {
        let mut out = Vec::new();
        let mut survey = Survey::start(&[A, B], &mut out);
        assert_eq!(out, [Effect::Check { to: A }, Effect::Check { to: B }]);
        out.clear();
        survey.on_same(B, &mut out);
        // Twice, and from a stranger.
        survey.on_same(B, &mut out);
        survey.on_same(NodeId(9), &mut out);
        assert!(out.is_empty() && !survey.is_done());
        survey.on_other(A, &mut out);
        survey.on_same(A, &mut out);
        survey.on_deadline(&mut out);
        assert_eq!((&out[..], survey.same()), (&[Effect::Answer][..], &[B][..]));
    }

    #[test]
    fn it_answers_with_nobody_to_ask_and_when_its_time_is_up() {
        let mut out = Vec::new();
        assert!(Survey::start(&[], &mut out).is_done());
        assert_eq!(out, [Effect::Answer]);
        out.clear();
        let mut survey = Survey::start(&[A, B], &mut out);
        survey.on_same(A, &mut out);
        survey.on_deadline(&mut out);
        assert_eq!((out.last(), survey.same()), (Some(&Effect::Answer), &[A][..]));
    }
}
