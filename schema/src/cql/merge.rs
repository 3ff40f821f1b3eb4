//! One ordered range out of the buckets among which a hash spreads the rows of a partition.
//!
//! R1  The result is what a single partition would answer: every row once, in order, at most as many as were asked for.
//! R2  A bucket is asked for its share and a little more, and again only when that is used up.

use std::collections::VecDeque;

use futures_util::future::try_join_all;

use crate::kv::{Direction, Pairs};
use crate::store::StoreError;

/// Rows beyond its share that a bucket is asked for: few rows are spread less evenly than many.
const MARGIN: usize = 8;

/// What is known of one bucket.
#[derive(Default)]
struct Run {
    rows: VecDeque<(Vec<u8>, Vec<u8>)>,
    /// Place of the row that was taken last.
    last: Option<Vec<u8>>,
    /// It may have more than `rows`.
    more: bool,
}

/// Merges `buckets` of them. `page` reads the rows of one that come after a place, at most so many.
pub(super) async fn merged<F>(
    buckets: i64,
    limit: usize,
    direction: Direction,
    page: impl Fn(i64, Option<Vec<u8>>, usize) -> F,
) -> Result<Pairs, StoreError>
where
    F: Future<Output = Result<Pairs, StoreError>>,
{
    let count = usize::try_from(buckets).unwrap_or(1).max(1);
    let share = (limit / count).saturating_add(limit / count / 8).saturating_add(MARGIN).min(limit);
    let run = |rows: Pairs| Run { more: rows.len() >= share, rows: rows.into(), last: None };
    let first = try_join_all((0..buckets).map(|bucket| page(bucket, None, share))).await?;
    let mut runs: Vec<Run> = first.into_iter().map(run).collect();
    let mut found = Pairs::new();
    while found.len() < limit {
        for (bucket, run) in (0..buckets).zip(&mut runs) {
            if run.rows.is_empty() && run.more {
                let rows = page(bucket, run.last.clone(), share).await?;
                run.more = rows.len() >= share;
                run.rows = rows.into();
            }
        }
        let heads = runs.iter_mut().filter(|run| !run.rows.is_empty());
        let next = match direction {
            Direction::Up => heads.min_by(|a, b| a.rows[0].0.cmp(&b.rows[0].0)),
            Direction::Down => heads.max_by(|a, b| a.rows[0].0.cmp(&b.rows[0].0)),
        };
        let Some((run, row)) = next.and_then(|run| run.rows.pop_front().map(|row| (run, row))) else { break };
        if run.rows.is_empty() {
            run.last = Some(row.0.clone());
        }
        found.push(row);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Buckets of rows, and how many rows each was asked for in all.
    struct Shelf(Vec<Vec<u16>>, Mutex<Vec<usize>>);

    impl Shelf {
        async fn page(
            &self,
            bucket: i64,
            after: Option<Vec<u8>>,
            most: usize,
            way: Direction,
        ) -> Result<Pairs, StoreError> {
            let bucket = usize::try_from(bucket).expect("small");
            self.1.lock().expect("no test panics")[bucket] += most;
            let mut places: Vec<Vec<u8>> = self.0[bucket].iter().map(|n| n.to_be_bytes().to_vec()).collect();
            places.sort();
            if way == Direction::Down {
                places.reverse();
            }
            let known = after.map_or(0, |after| places.iter().position(|place| *place == after).expect("was read") + 1);
            Ok(places.into_iter().skip(known).take(most).map(|place| (place, Vec::new())).collect())
        }
    }

    async fn check(buckets: &[Vec<u16>], limit: usize, way: Direction) -> Vec<usize> {
        let shelf = Shelf(buckets.to_vec(), Mutex::new(vec![0; buckets.len()]));
        let page = |bucket, after, most| shelf.page(bucket, after, most, way);
        let found = merged(buckets.len() as i64, limit, way, page).await.expect("reads");
        let found: Vec<u16> = found.iter().map(|(place, _)| u16::from_be_bytes([place[0], place[1]])).collect();
        let mut all: Vec<u16> = buckets.concat();
        all.sort_unstable();
        if way == Direction::Down {
            all.reverse();
        }
        assert_eq!(found, all[..limit.min(all.len())], "R1: {limit} {way:?}");
        shelf.1.into_inner().expect("no test panics")
    }

    #[tokio::test]
    async fn a_range_over_buckets_is_whole_and_in_order() {
        let even: Vec<Vec<u16>> = (0..4).map(|n| (0..500).map(|row| row * 4 + n).collect()).collect();
        let skewed = vec![(0..700).collect(), vec![], vec![900], (701..720).collect::<Vec<u16>>()];
        for way in [Direction::Up, Direction::Down] {
            for limit in [1, 2, 7, 8, 100, 719, 2_000, usize::MAX] {
                check(&even, limit, way).await;
                check(&skewed, limit, way).await;
            }
        }
        check(&[vec![], vec![]], 9, Direction::Up).await;
        let asked = check(&even, 400, Direction::Up).await;
        assert_eq!(asked, [120; 4], "R2: a quarter, an eighth of it, and the margin");
    }
}
