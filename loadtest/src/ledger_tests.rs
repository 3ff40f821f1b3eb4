//! Synthetic histories: the ledger has to see each fault, and only faults.

use super::*;
use crate::meter::Clock;

fn opened(audience: Audience) -> Arc<Lane> {
    Ledger::default().open(audience, &Arc::new(Meter::new("test", Clock::default()).unwrap()))
}

/// One connection of one agent, as the receiving side works.
struct Connection<'a> {
    lane: &'a Lane,
    order: Sequence,
    place: u64,
}

impl<'a> Connection<'a> {
    fn of(lane: &'a Lane, place: u64) -> Self {
        Self { lane, order: Sequence::default(), place }
    }

    fn show(&mut self, index: u64, seq: u32) {
        let order = self.order.next("conv_1", seq);
        self.lane.judge(order, self.lane.shown(index, self.place, seq), false);
    }
}

/// `count` acknowledged messages with `seq` 1, 2, 3 …
fn acknowledged(audience: Audience, count: u64) -> Arc<Lane> {
    let lane = opened(audience);
    for n in 0..count {
        let index = lane.next().unwrap();
        let sender = matches!(audience, Audience::Group { .. }).then_some(0);
        lane.acknowledged(index, n as u32 + 1, sender);
    }
    lane
}

#[track_caller]
fn check(lane: &Lane, [lost, duplicated, out_of_order, astray, redelivered]: [u64; 5]) {
    let verdict = lane.verdict();
    let found = [verdict.lost, verdict.duplicated, verdict.out_of_order, verdict.astray, verdict.redelivered];
    assert_eq!(found, [lost, duplicated, out_of_order, astray, redelivered], "{}", verdict.line());
    assert_eq!(verdict.passed(), lost + duplicated + out_of_order + astray == 0);
    assert_eq!(verdict.delivered + verdict.lost, verdict.expected);
}

/// Message `n` (from 1) has number `n - 1` and `seq` n; the history is what one connection was shown, in order.
#[track_caller]
fn history(shown: &[u64], expected: [u64; 5]) {
    let lane = acknowledged(Audience::Direct, 5);
    let mut connection = Connection::of(&lane, 0);
    shown.iter().for_each(|n| connection.show(n - 1, *n as u32));
    check(&lane, expected);
}

#[test]
#[rustfmt::skip] // the columns are the test
fn one_connection() {
    //       shown                  lost dup order astray again
    history(&[1, 2, 3, 4, 5],       [0,   0,  0,    0,     0]);
    history(&[1, 2, 4, 5],          [1,   0,  0,    0,     0]);
    history(&[],                    [5,   0,  0,    0,     0]);
    history(&[1, 2, 2, 3, 4, 5],    [0,   1,  0,    0,     0]);
    history(&[1, 3, 2, 4, 5],       [0,   0,  1,    0,     0]);
    history(&[5, 4, 3, 2, 1],       [0,   0,  4,    0,     0]);
    history(&[1, 2, 3, 4, 5, 1],    [0,   0,  1,    0,     0]); // an old one again is not in order either
    history(&[1, 2, 3, 4, 5, 9],    [0,   0,  0,    1,     0]); // never sent
}

#[test]
fn another_connection_may_show_it_again() {
    let lane = acknowledged(Audience::Direct, 3);
    let mut first = Connection::of(&lane, 0);
    (0..2).for_each(|n| first.show(n, n as u32 + 1));
    let mut second = Connection::of(&lane, 0);
    (1..3).for_each(|n| second.show(n, n as u32 + 1));
    check(&lane, [0, 0, 0, 0, 1]);
}

#[test]
fn what_shards_that_move_may_show_again_is_allowed_on_request_only() {
    let lane = acknowledged(Audience::Direct, 2);
    (0..2).for_each(|n| assert_eq!(lane.shown(n, 0, n as u32 + 1), Sight::First));
    lane.judge(Order::Back, Sight::Again, true);
    lane.judge(Order::Same, Sight::Again, true);
    check(&lane, [0, 0, 0, 0, 2]);
    lane.judge(Order::Back, Sight::First, true);
    check(&lane, [0, 0, 1, 0, 2]);
}

#[test]
fn one_send_that_is_two_rows_of_a_log() {
    let lane = acknowledged(Audience::Direct, 1);
    assert_eq!(lane.shown(0, 0, 1), Sight::First);
    assert_eq!(lane.shown(0, 0, 2), Sight::Again); // the same send, stored under another number
    check(&lane, [0, 1, 0, 0, 0]);
}

#[test]
fn only_acknowledged_messages_are_expected() {
    let lane = opened(Audience::Direct);
    let (acked, unknown, early) = (lane.next().unwrap(), lane.next().unwrap(), lane.next().unwrap());
    lane.acknowledged(acked, 1, None);
    lane.unanswered(false);
    assert_eq!(lane.shown(early, 0, 2), Sight::First); // before its answer
    check(&lane, [1, 0, 0, 0, 0]);
    lane.acknowledged(early, 2, None);
    assert_eq!(lane.shown(acked, 0, 1), Sight::First);
    check(&lane, [0, 0, 0, 0, 0]);
    let verdict = lane.verdict();
    assert_eq!((verdict.sent, verdict.acknowledged, verdict.unknown), (3, 2, 1));
    assert_eq!(lane.shown(unknown, 0, 3), Sight::First); // it was stored after all
    check(&lane, [0, 0, 0, 0, 0]);
}

#[test]
fn everything_refused_is_no_success() {
    let lane = opened(Audience::Direct);
    lane.next().unwrap();
    lane.unanswered(true);
    assert!(!lane.verdict().passed());
    assert!(Verdict::default().passed(), "nothing was asked for");
}

#[test]
fn every_member_of_a_group_but_the_sender() {
    let lane = acknowledged(Audience::Group { first: 10, size: 4 }, 3);
    for place in 1..4 {
        let mut member = Connection::of(&lane, place);
        (0..3).filter(|n| (place, *n) != (2, 1)).for_each(|n| member.show(n, n as u32 + 1));
    }
    check(&lane, [1, 0, 0, 0, 0]);
    assert_eq!(lane.verdict().expected, 9);
    lane.acknowledged(1, 2, [2]); // the answer said that this member is skipped
    assert_eq!(lane.verdict().lost, 0);
}

#[test]
fn chunks_are_no_seam() {
    let lane = acknowledged(Audience::Direct, 2 * CHUNK + 7);
    let mut connection = Connection::of(&lane, 0);
    (0..2 * CHUNK + 7).filter(|n| *n != CHUNK).for_each(|n| connection.show(n, n as u32 + 1));
    check(&lane, [1, 0, 0, 0, 0]);
}

#[test]
#[rustfmt::skip]
fn places() {
    let group = Audience::Group { first: 100, size: 8 };
    let ring = Audience::Ring { first: 100, agents: 10, watchers: 3 };
    //                 audience         to    agent        place
    assert_eq!(Audience::Direct.place(  7,    7),   Some(0));
    assert_eq!(Audience::Direct.place(  7,    8),   None);
    assert_eq!(group.place(             0,    107), Some(7));
    assert_eq!(group.place(             1,    107), None);
    assert_eq!(group.place(             1,    108), Some(0));
    assert_eq!(ring.place(              105,  104), Some(0));
    assert_eq!(ring.place(              105,  102), Some(2));
    assert_eq!(ring.place(              105,  101), None);
    assert_eq!(ring.place(              100,  109), Some(0)); // round the end
    assert_eq!(ring.place(              100,  100), None);    // itself
    assert_eq!(ring.place(              100,  110), None);    // not of the ring
    assert_eq!(ring.place(              100,  99),  None);
}
