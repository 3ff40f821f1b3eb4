//! What histories must show, whatever happened (contract §12), and the names by which a verdict calls each rule.
//!
//! S1   A log counts 1, 2, 3, without holes.
//! S2   What a client was offered of a conversation is what the others wrote there, in order, all of it.
//! S5   One send is one message.
//! S6   What was answered is in the log, at that place.
//! S15  After everything is mended, every send is answered and every inbox drained.
//! S17  What a client acked, and learned to be settled, is offered nowhere that begins later: on no socket, on no page.
//! A1   A request that the contract allows is not refused.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Instant;

use futures_util::StreamExt;
use serde_json::Value;

use crate::Failure;
use crate::agents::World;
use crate::history::{Acked, Records, Seen, Violation};

/// How much was checked.
#[derive(Debug, Default)]
pub struct Checked {
    /// Messages in all logs.
    pub messages: usize,
    /// Logs.
    pub conversations: usize,
    /// Deliveries to recipients.
    pub deliveries: usize,
    /// Acknowledgements of clients, repeats included.
    pub acked: usize,
    /// Messages that clients know to be settled.
    pub settled: usize,
    /// Batches that servers vouched for, each as the owner of its shard.
    pub batches: usize,
}

/// Reads all logs and holds the histories against them. Violations go to the history.
pub async fn check(world: &World) -> Result<Checked, Failure> {
    let mut readers: HashMap<String, HashSet<usize>> = HashMap::new();
    {
        let records = world.history.records();
        for sent in &records.sends {
            if let Some(Ok((conversation, ..))) = &sent.outcome {
                readers.entry(conversation.clone()).or_default().extend(sent.to.into_iter().chain([sent.agent]));
            }
        }
        for (agent, conversation) in records.seen.keys() {
            readers.entry(conversation.clone()).or_default().insert(*agent);
        }
    }
    for (n, agent) in world.agents.iter().enumerate() {
        for group in &agent.groups {
            readers.entry(group.clone()).or_default().insert(n);
        }
    }
    let logs = futures_util::stream::iter(&readers).map(|(conversation, members)| async move {
        let reader = members.iter().min().copied().unwrap_or(0);
        world.log(reader, conversation).await.map(|log| (conversation.clone(), log))
    });
    let logs: Vec<_> = logs.buffer_unordered(16).collect().await;
    let logs: BTreeMap<String, Vec<Value>> = logs.into_iter().collect::<Result<_, _>>()?;
    let handles: Vec<String> = world.agents.iter().map(|agent| agent.handle.clone()).collect();
    let (violations, checked) = judge(&world.history.records(), &logs, &readers, &handles);
    violations.into_iter().for_each(|Violation { rule, what }| world.history.violate(rule, what));
    Ok(checked)
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

/// The judgement itself: histories and logs in, violations out.
fn judge(
    records: &Records,
    logs: &BTreeMap<String, Vec<Value>>,
    readers: &HashMap<String, HashSet<usize>>,
    handles: &[String],
) -> (Vec<Violation>, Checked) {
    let (mut wrong, mut checked) = (Vec::new(), Checked::default());
    let mut violate = |rule, what| wrong.push(Violation { rule, what });
    let mut places: HashMap<(String, String), (String, u64, String)> = HashMap::new();
    for (conversation, log) in logs {
        checked.conversations += 1;
        checked.messages += log.len();
        for (n, row) in log.iter().enumerate() {
            let seq = row["seq"].as_u64().unwrap_or(0);
            if seq != n as u64 + 1 {
                violate("S1", format!("{conversation} has seq {seq} in place {}", n + 1));
                break;
            }
            if row["type"] != "text" {
                continue;
            }
            let key = (text(row, "sender"), text(row, "client_msg_id"));
            let place = (conversation.clone(), seq, text(row, "id"));
            if let Some(other) = places.insert(key, place.clone()) {
                violate("S5", format!("one send is in the log twice: {other:?} and {place:?}"));
            }
        }
    }
    for sent in &records.sends {
        let stored = places.get(&(handles[sent.agent].clone(), sent.key.clone()));
        match (&sent.outcome, stored) {
            (Some(Ok(place)), Some(stored)) if place == stored => {}
            (Some(Ok(place)), stored) => {
                violate("S6", format!("{} was acknowledged as {place:?}, the log has {stored:?}", sent.key));
            }
            (None, _) => violate("S15", format!("{} was never answered", sent.key)),
            (Some(Err(_)), _) => {} // noted when it happened
        }
    }
    for (conversation, members) in readers {
        let Some(log) = logs.get(conversation) else { continue };
        // Both of a direct conversation, whoever was heard of it, and all of a group.
        for agent in members {
            let theirs = log.iter().filter(|row| row["type"] == "text" && row["sender"] != handles[*agent].as_str());
            let place = |row: &Value| Some(Seen { seq: row["seq"].as_u64()?, key: text(row, "client_msg_id") });
            let expected: Vec<Seen> = theirs.filter_map(place).collect();
            let seen = records.seen.get(&(*agent, conversation.clone())).map_or(&[][..], Vec::as_slice);
            checked.deliveries += expected.len();
            if let Some(what) = compare(&expected, seen) {
                violate("S2", format!("{} in {conversation}: {what}", handles[*agent]));
            }
        }
    }
    for (agent, acked) in &records.acked {
        let settled = settled(acked);
        (checked.acked, checked.settled) = (checked.acked + acked.len(), checked.settled + settled.len());
        let offered = records.offered.get(agent).into_iter().flatten();
        for again in offered.filter(|offer| settled.get(offer.id.as_str()).is_some_and(|at| offer.since > *at)) {
            violate("S17", format!("{} acked {} for good, and was offered it again", handles[*agent], again.id));
        }
    }
    (wrong, checked)
}

/// From when on a client knew which messages to be settled.
fn settled(acked: &[Acked]) -> HashMap<&str, Instant> {
    let mut settled: HashMap<&str, Instant> = HashMap::new();
    for (ack, at) in acked.iter().filter_map(|ack| Some((ack, ack.confirmed?))) {
        let since = settled.entry(&ack.id).or_insert(at);
        *since = at.min(*since);
    }
    settled
}

/// First arrivals have to be the log of the others, in order and without gaps; repeats have to be what came first. A
/// place alone says little: two owners could give it to different messages.
fn compare(expected: &[Seen], seen: &[Seen]) -> Option<String> {
    let mut known: HashMap<u64, &str> = HashMap::new();
    let mut first = Vec::new();
    for arrival in seen {
        match known.insert(arrival.seq, &arrival.key) {
            None => first.push(arrival.clone()),
            Some(before) if before == arrival.key => {}
            Some(before) => return Some(format!("seq {} was {before} and then {}", arrival.seq, arrival.key)),
        }
    }
    if first == expected {
        return None;
    }
    let at = first.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(first.len().min(expected.len()));
    Some(format!(
        "arrival {at} was {:?} and should have been {:?} ({} of {} arrived)",
        first.get(at),
        expected.get(at),
        first.len(),
        expected.len()
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::history::{Offered, Sent};

    /// Messages by the places that they have in the logs of these tests.
    fn seen(seqs: &[u64]) -> Vec<Seen> {
        seqs.iter().map(|seq| Seen { seq: *seq, key: if *seq == 1 { "x" } else { "y" }.into() }).collect()
    }

    #[test]
    fn repeats_are_fine_and_gaps_and_swaps_are_not() {
        let compare = |expected: &[u64], arrived: &[u64]| compare(&seen(expected), &seen(arrived));
        assert_eq!(compare(&[1, 3, 4], &[1, 3, 1, 3, 4]), None);
        assert!(compare(&[1, 3, 4], &[1, 4, 3]).is_some(), "swapped");
        assert!(compare(&[1, 3, 4], &[1, 4]).is_some(), "a gap");
        assert!(compare(&[1, 3, 4], &[1, 3]).is_some(), "incomplete");
        assert!(compare(&[1], &[1, 2]).is_some(), "from nowhere");
    }

    #[test]
    fn a_place_with_another_message_is_wrong() {
        let other = |seq| Seen { seq, key: "other".into() };
        assert!(compare(&seen(&[1]), &[other(1)]).is_some(), "the log has another");
        assert!(compare(&seen(&[1]), &[seen(&[1]).remove(0), other(1)]).is_some(), "a repeat that is none");
    }

    #[test]
    fn every_kind_of_wrong_is_seen() {
        let row = |seq: u64, key: &str| json!({"seq": seq, "id": format!("m{seq}"), "sender": "a", "client_msg_id": key, "type": "text"});
        let sent = |key: &str, seq: u64| Sent {
            agent: 0,
            to: Some(1),
            key: key.into(),
            since: std::time::Instant::now(),
            took: None,
            outcome: Some(Ok(("c".into(), seq, format!("m{seq}")))),
            attempts: 1,
        };
        let check = |log: Vec<Value>, sends: Vec<Sent>, arrived: &[u64]| {
            let records = Records { sends, seen: [((1, "c".to_owned()), seen(arrived))].into(), ..Records::default() };
            let readers = [("c".to_owned(), [0, 1].into())].into();
            judge(&records, &[("c".to_owned(), log)].into(), &readers, &["a".into(), "b".into()]).0
        };
        assert!(check(vec![row(1, "x"), row(2, "y")], vec![sent("x", 1), sent("y", 2)], &[1, 2]).is_empty());
        assert!(check(vec![row(1, "x")], vec![sent("x", 1), sent("y", 2)], &[1])[0].rule == "S6", "lost");
        assert!(check(vec![row(1, "x"), row(2, "x")], vec![sent("x", 1)], &[1, 2])[0].rule == "S5", "twice");
        assert!(check(vec![row(1, "x"), row(3, "y")], vec![], &[1, 3])[0].rule == "S1", "a hole");
        let two = check(vec![row(1, "x")], vec![sent("x", 1), sent("y", 1)], &[1]);
        assert!(two[0].rule == "S6", "one place, two sends");
    }

    #[test]
    fn what_was_acked_for_good_does_not_come_back() {
        let at = |second| Instant::now() + Duration::from_secs(second);
        let check = |acked: &[(&str, Option<Instant>)], offered: &[(&str, Instant)]| {
            let acked = acked.iter().map(|(id, confirmed)| Acked { id: (*id).into(), confirmed: *confirmed }).collect();
            let offered = offered.iter().map(|(id, since)| Offered { id: (*id).into(), since: *since }).collect();
            let records = Records { acked: [(0, acked)].into(), offered: [(0, offered)].into(), ..Records::default() };
            let (violations, checked) = judge(&records, &BTreeMap::new(), &HashMap::new(), &["a".into()]);
            (violations.iter().map(|violation| violation.rule).collect::<Vec<_>>(), checked.settled)
        };
        let (early, between, late) = (at(1), at(2), at(3));
        assert_eq!(check(&[("m", Some(between))], &[("m", early), ("m", late)]), (vec!["S17"], 1), "resurrected");
        assert_eq!(check(&[("m", Some(between))], &[("m", early), ("m", early)]), (vec![], 1), "still on its way");
        assert_eq!(check(&[("m", None)], &[("m", early), ("m", late)]), (vec![], 0), "the ack may be lost");
        assert_eq!(check(&[("m", Some(between))], &[("n", late)]), (vec![], 1), "another message");
        let twice = [("m", Some(early)), ("m", Some(late))];
        assert_eq!(check(&twice, &[("m", between)]), (vec!["S17"], 1), "what was known first counts");
    }
}
