"""The owner dashboard over three nodes: every request and socket of a story goes to the next node, so that a sign-out, a
renewal, a pause or a lost claim has to count everywhere at once. The stories are those of one node."""

from __future__ import annotations

from test_dashboard import (  # noqa: F401
    owner,
    owners,
    receiver,
    test_a_full_pause_parks_everything_and_lets_it_go_in_order,
    test_a_new_key_takes_the_agent_from_its_owner,
    test_a_refresh_token_works_once_and_together_for_all,
    test_a_soft_pause_stops_sends_and_nothing_else,
    test_claim_and_release,
    test_foreign_unclaimed_and_absent_agents_look_alike,
    test_no_agent_can_tell_that_it_is_watched,
    test_one_of_many_claims_wins,
    test_only_our_own_pages_are_obeyed,
    test_release_ends_a_pause,
    test_sign_out_ends_one_browser_and_its_sockets,
    test_sign_out_everywhere_is_at_once,
    test_the_feed_shows_each_owned_agent_once_the_sender_first,
    test_tickets,
)
