//! The store contract as tests: every promise, on every engine.
//!
//! A promise is a function over `&dyn Store` with an empty store; an engine passes when it keeps all of them. A new
//! engine is one more line in `on_every_engine!`.

mod accounts;
mod batches;
mod cql;
mod fixtures;
mod groups;
mod inboxes;
mod logs;
mod owners;
mod ownership;
mod relations;

use schema::embedded::{EmbeddedOptions, EmbeddedStore};
use schema::memory::MemoryStore;
use schema::store::Store;

macro_rules! on_every_engine {
    ($($room:ident::$promise:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                let store = super::MemoryStore::new();
                super::$room::$promise(&store).await;
            })*
        }

        mod embedded {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                use super::Store;
                let dir = tempfile::tempdir().expect("dir");
                // Small segments, so that every promise also holds while they are closed and flushed.
                let options = || super::EmbeddedOptions { cache_bytes: 1 << 20, segment_bytes: 16 << 10 };
                let store = super::EmbeddedStore::open(dir.path(), options()).expect("opens");
                super::$room::$promise(&store).await;
                store.close().await.expect("closes");
                drop(store);
                super::EmbeddedStore::open(dir.path(), options()).expect("opens again");
            })*
        }

        /// One keyspace for all, emptied before each: definitions are slow.
        #[tokio::test(flavor = "multi_thread")]
        async fn every_promise_over_cql() {
            let Some(ring) = cql::Ring::of_environment("conformance").await else { return };
            $({
                println!(stringify!($room::$promise));
                ring.empty().await;
                $room::$promise(&ring.store).await;
            })*
            ring.empty().await;
            ownership::leases_and_shards_change_only_as_they_were_seen(&ring.store).await;
        }
    };
}

on_every_engine!(
    accounts::a_handle_is_given_once,
    accounts::budgets_of_an_email_are_kept,
    accounts::releasing_an_email_twice_changes_nothing,
    accounts::a_key_resolves_until_it_is_removed,
    accounts::a_pending_code_is_taken_once,
    accounts::a_pending_code_changes_only_from_what_was_read,
    accounts::creation_consumes_its_pending_code,
    batches::a_batch_is_seen_whole_or_not_at_all,
    batches::submitting_again_changes_nothing,
    batches::batches_of_one_entity_keep_their_order,
    batches::what_was_answered_is_visible,
    batches::an_empty_batch_is_answered_after_those_before,
    groups::a_group_and_its_invitations_are_kept,
    groups::large_bodies_are_stored_once_and_delivered_whole,
    groups::what_the_server_writes_leaves_no_replay_record,
    groups::watchers_follow_the_books,
    groups::watchers_and_handles_come_in_pages_and_in_order,
    groups::the_directory_lists_who_may_be_found,
    groups::agents_are_made_in_bulk_all_or_none,
    groups::a_released_email_starts_anew,
    groups::states_reports_and_files_are_kept,
    groups::what_has_expired_is_swept_and_nothing_else,
    inboxes::pages_are_bounded_and_in_order,
    inboxes::removed_deliveries_are_gone,
    inboxes::receipts_keep_their_last_state,
    inboxes::views_of_conversations_are_kept_apart,
    logs::pages_go_both_ways,
    logs::a_replay_record_comes_with_its_message,
    logs::heads_are_replaced,
    owners::owners_and_their_agents_are_kept,
    owners::activity_is_bounded_and_newest_first,
    owners::codes_and_tickets_of_owners_are_swept,
    relations::books_are_sorted_by_handle,
    relations::blocks_end,
    relations::cold_threads_come_and_go,
);
