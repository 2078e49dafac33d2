"""The contract for a suite whose code another suite runs through all of it.

A storage has variants: another server of its kind, a secret, several servers, a tier before it. What a variant changes
is run in full, and of each other part of the contract the tests named here, in one mode: those that ask the storage
something of their own, once each.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from zlib import crc32

from storeroom.testing import CacheContract
from storeroom.testing.contract.advice import AdviceContract
from storeroom.testing.contract.arguments import ArgumentsContract
from storeroom.testing.contract.batches import BatchesContract
from storeroom.testing.contract.bounds import BoundsContract
from storeroom.testing.contract.cached import CachedContract
from storeroom.testing.contract.collected import FinalizersContract
from storeroom.testing.contract.computing import ComputingContract
from storeroom.testing.contract.counting import CountingContract
from storeroom.testing.contract.endings import EndingsContract
from storeroom.testing.contract.eviction import EvictionContract
from storeroom.testing.contract.expiry import ExpiryContract
from storeroom.testing.contract.explained import ExplainedContract
from storeroom.testing.contract.foreign import ForeignCodeContract
from storeroom.testing.contract.forks import ForkContract
from storeroom.testing.contract.freshness import FreshnessContract
from storeroom.testing.contract.handles import HandlesContract
from storeroom.testing.contract.interruption import InterruptionContract
from storeroom.testing.contract.keys import KeysContract
from storeroom.testing.contract.locks import LocksContract
from storeroom.testing.contract.many import ManyContract
from storeroom.testing.contract.memos import MemosContract
from storeroom.testing.contract.odd_values import OddValuesContract
from storeroom.testing.contract.processes import ProcessesContract
from storeroom.testing.contract.races import RacesContract
from storeroom.testing.contract.refreshing import RefreshingContract
from storeroom.testing.contract.separation import SeparationContract
from storeroom.testing.contract.sequences import SequencesContract
from storeroom.testing.contract.stampede import StampedeContract
from storeroom.testing.contract.statistics import StatisticsContract
from storeroom.testing.contract.suite import Suite
from storeroom.testing.contract.swaps import SwapsContract
from storeroom.testing.contract.tags import TagsContract
from storeroom.testing.contract.threads import ThreadsContract
from storeroom.testing.contract.transactions import TransactionsContract
from storeroom.testing.contract.unstorable import UnstorableContract
from storeroom.testing.contract.values import ValuesContract

__all__ = ["IN_ANOTHER_CONTEXT", "PICKED", "contract_of"]

#: A part of the contract -> the tests that a variant of a storage runs at least.
PICKED: Final[Mapping[type[Suite], Sequence[str]]] = {
    HandlesContract: (
        "test_an_empty_cache_has_nothing",
        "test_handles_of_one_storage_agree",
        "test_handles_may_have_settings_of_their_own",
        "test_close_ends_nothing",
    ),
    AdviceContract: ("test_advice_tells_of_all_reads_of_a_small_cache",),
    ValuesContract: (
        "test_get_returns_an_equal_object_of_the_programs_own_class",
        "test_get_tells_a_stored_none_from_absence",
        "test_set_overwrites",
        "test_add_keeps_the_first_value",
        "test_delete_removes_and_tells_whether_it_did",
        "test_add_stores_after_delete",
        "test_has_key_and_in_tell_whether_a_key_is_there",
        "test_changing_an_object_does_not_change_what_is_cached",
    ),
    OddValuesContract: ("test_what_is_an_int_or_a_float_is_counted", "test_a_lease_is_no_entry"),
    ForeignCodeContract: (),
    FinalizersContract: (),
    ArgumentsContract: ("test_a_timeout_may_be_any_number", "test_a_delta_is_a_number"),
    KeysContract: (
        "test_odd_keys_are_different_keys",
        "test_keys_and_count_pass_over_what_is_not_live",
        "test_prefixes_keep_caches_of_one_storage_apart",
        "test_clear_removes_everything",
        "test_clear_removes_every_version",
        "test_clear_removes_only_the_caches_own_keys",
        "test_versions_keep_entries_apart",
        "test_incr_version_moves_an_entry",
        "test_incr_version_replaces_what_is_there",
        "test_incr_version_keeps_the_timeout",
    ),
    SeparationContract: ("test_clear_is_of_the_moment", "test_no_key_is_an_internal_one"),
    ManyContract: (
        "test_get_many_returns_what_is_there",
        "test_set_many_stores_and_returns_the_keys_that_failed",
        "test_delete_many_removes_what_is_there",
        "test_many_may_be_very_many",
    ),
    CountingContract: (
        "test_incr_adds_and_returns_the_new_number",
        "test_a_counter_can_be_made_by_any_write",
        "test_incr_keeps_the_timeout",
        "test_counting_what_is_not_there_is_an_error",
        "test_incr_with_a_default_creates_the_number",
        "test_a_number_whose_tag_was_invalidated_is_created_anew",
    ),
    LocksContract: ("test_lock_has_one_owner", "test_fence_grows_with_each_owner", "test_a_lock_is_no_entry"),
    ExpiryContract: (
        "test_an_entry_lives_until_its_timeout",
        "test_a_fraction_of_a_second_counts",
        "test_none_is_never",
        "test_ttl_tells_the_seconds_left",
        "test_set_gives_a_new_timeout",
        "test_touch_gives_a_new_timeout",
        "test_touch_may_take_the_timeout_away",
        "test_touch_with_zero_removes",
        "test_touch_never_revives",
        "test_expire_at_takes_a_point_in_time",
        "test_expire_at_a_time_in_the_past_removes",
        "test_add_stores_over_an_expired_entry",
        "test_get_or_set_computes_over_an_expired_entry",
        "test_counting_an_expired_entry_is_an_error",
        "test_entries_of_one_set_many_expire_together",
    ),
    ComputingContract: (
        "test_get_or_set_returns_what_is_stored",
        "test_get_or_set_computes_stores_and_returns",
        "test_get_or_set_returns_what_is_stored_meanwhile",
    ),
    BatchesContract: (
        "test_it_takes_one_read_and_one_write",
        "test_what_is_changed_meanwhile_is_not_overwritten",
        "test_what_was_not_computed_is_in_nobodys_way",
        "test_stale_values_are_served_if_the_computation_fails",
    ),
    SwapsContract: (
        "test_a_swap_is_made_where_the_entry_is_as_expected",
        "test_an_entry_is_removed_where_it_is_as_expected",
        "test_each_swap_has_an_expiry_of_its_own",
        "test_of_many_who_want_the_same_each_entry_has_one_winner",
    ),
    FreshnessContract: (
        "test_a_stale_value_is_served_while_one_is_computed",
        "test_a_stale_entry_is_absent_to_everybody_else",
        "test_touch_gives_a_value_with_conditions_a_new_timeout",
        "test_add_and_incr_version_respect_a_value_with_conditions",
        "test_what_is_deleted_while_it_is_computed_stays_deleted",
        "test_a_value_that_is_set_while_it_is_computed_stays",
    ),
    RefreshingContract: (
        "test_refresh_computes_whatever_is_stored",
        "test_what_is_deleted_meanwhile_is_not_put_back",
        "test_what_is_set_meanwhile_stays",
    ),
    CachedContract: (),
    UnstorableContract: (
        "test_no_older_value_is_served_for_one_that_was_computed",
        "test_callers_who_wait_get_it_too",
        "test_set_many_stores_all_others",
    ),
    TagsContract: (
        "test_invalidate_tags_makes_entries_absent_to_every_operation",
        "test_a_lost_version_means_misses",
        "test_clear_removes_tagged_entries",
        "test_a_version_lives_as_long_as_the_entries_that_need_it",
        "test_threads_agree_on_a_new_version",
    ),
    TransactionsContract: (
        "test_writes_are_seen_by_others_after_the_block",
        "test_a_cancelled_task_leaves_no_old_value",
        "test_clear_is_held_back",
        "test_counters_count_what_others_have_counted",
        "test_a_reader_of_before_does_not_put_the_old_value_back",
    ),
    MemosContract: (
        "test_own_writes_are_seen_and_made",
        "test_computing_sees_what_others_have_stored",
        "test_invalidated_tags_are_seen",
    ),
    StatisticsContract: (
        "test_reads_are_hits_or_misses",
        "test_get_or_set_is_one_read",
        "test_entries_removed_on_request_are_deletes",
    ),
    ExplainedContract: (
        "test_an_entry_that_is_there_is_explained",
        "test_a_look_leaves_no_trace",
        "test_a_deleted_entry_is_told",
        "test_an_invalidated_tag_is_named",
    ),
    BoundsContract: (),
    EvictionContract: (),
    StampedeContract: (
        "test_handles_of_one_storage_compute_a_cold_key_once",
        "test_fifty_tasks_compute_a_cold_key_once",
    ),
    ThreadsContract: (
        "test_threads_count_exactly",
        "test_threads_add_a_key_once",
        "test_threads_read_whole_values",
        "test_threads_may_do_anything_at_once",
    ),
    InterruptionContract: (),
    EndingsContract: (),
    ForkContract: ("test_parent_and_child_both_go_on",),
    ProcessesContract: (
        "test_processes_and_threads_compute_a_cold_key_once",
        "test_a_killed_leader_delays_the_others_by_at_most_its_lease",
    ),
    RacesContract: ("test_processes_count_exactly",),
    SequencesContract: ("test_any_sequence_of_operations_agrees_with_a_dict",),
}


#: The tests that read, in another thread, task or process, what was written just before. A replica may not have it yet.
IN_ANOTHER_CONTEXT: Final = (
    "test_writes_are_seen_by_others_after_the_block",
    "test_clear_is_held_back",
    "test_counters_count_what_others_have_counted",
    "test_a_reader_of_before_does_not_put_the_old_value_back",
    "test_own_writes_are_seen_and_made",
    "test_computing_sees_what_others_have_stored",
    "test_of_many_who_want_the_same_each_entry_has_one_winner",
    "test_threads_agree_on_a_new_version",
    "test_tasks_may_use_tags_at_once",
    "test_threads_read_whole_values",
    "test_threads_may_do_anything_at_once",
    "test_parent_and_child_both_go_on",
    "test_processes_and_threads_compute_a_cold_key_once",
    "test_a_killed_leader_delays_the_others_by_at_most_its_lease",
)


def contract_of(name: str, *whole: type[Suite], without: Sequence[str] = ()) -> Any:
    """Return the contract with these parts in full, and of each other part the tests that are picked.

    `without` names tests that the variant leaves to others.
    """
    left_out: dict[str, None] = {
        test: None  # which pytest passes over
        for part, picked in PICKED.items()
        for test in dir(part)
        if test.startswith("test_") and (test in without or (part not in whole and test not in picked))
    }
    both = {test for part in whole for test in dir(part) if test.startswith("test_")}
    return type(name, (CacheContract,), {**left_out, "sequences": 5, "crowd": 4, "in_both_modes": frozenset(both)})


def is_left_out(suite: type[Suite], test: str, mode: str) -> bool:
    """Tell whether a variant leaves a test in one of the modes, "sync" and "async", to the other suites of its storage.

    Of what a variant changes, each test runs in both; of the rest, in one that is as good as chosen by chance.
    """
    both: frozenset[str] | None = getattr(suite, "in_both_modes", None)
    if both is None or test in both:
        return False
    return mode == ("sync", "async")[crc32(f"{suite.__name__} {test}".encode()) % 2]
