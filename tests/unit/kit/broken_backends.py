"""Backends that each break one promise, and the tests of the contract that have to notice."""

import random
import time
from pickle import dumps, loads

from storeroom import timeouts
from storeroom.backends.locmem import LocMemCache
from storeroom.storage.hooks import MISSING
from storeroom.timeouts import NEVER
from tests.contract import test_custom

DictCache = test_custom.DictCache


class AddOverwrites(DictCache):
    def _add(self, storage_key, value, expires_at):
        super()._set_many({storage_key: value}, expires_at)
        return True


class ShowsExpired(DictCache):
    def _live(self, storage_key):
        return self._entries.get(storage_key)


class TouchRevives(DictCache):
    sees_envelopes = True

    def _touch(self, storage_key, expires_at):
        entry = self._entries.get(storage_key)
        if entry:
            self._entries[storage_key] = (entry[0], expires_at)
        return entry is not None


class TakesWholeSeconds(DictCache):
    def _set_many(self, values, expires_at):
        now = timeouts.now()
        return super()._set_many(values, expires_at if expires_at == NEVER else now + int(expires_at - now))


class GivesIncrementsANewTimeout(DictCache):
    def _incr(self, storage_key, delta):
        number = super()._incr(storage_key, delta)
        self._entries[storage_key] = (dumps(number), NEVER)
        return number


class LosesIncrements(DictCache):
    def _incr(self, storage_key, delta):
        number = loads(self._entries[storage_key][0])
        time.sleep(0)
        self._entries[storage_key] = (dumps(number + delta), self._entries[storage_key][1])
        return number + delta


class CountsInText(DictCache):
    def _incr(self, storage_key, delta):
        with self._lock:
            if not self._live(storage_key):
                raise KeyError(storage_key)
            number = int(loads(self._entries[storage_key][0])) + delta
            self._entries[storage_key] = (dumps(str(number)), self._entries[storage_key][1])
            return number


class GivesAnybodysLockBack(DictCache):
    def _compare_delete(self, storage_key, expected):
        return self._delete_many([storage_key]) > 0


class SwapsWithoutComparing(DictCache):
    def _swap(self, storage_key, swap):
        if swap.value is MISSING:
            return self._delete(storage_key)
        return self._set(storage_key, swap.value, swap.expires_at)


class StoresLateResults(DictCache):
    def _compare_set(self, storage_key, expected, value, expires_at):
        return self._set(storage_key, value, expires_at)


class DropsOldValueBeforeRefusing(DictCache):
    def _set_many(self, values, expires_at):
        self._delete_many(list(values))
        return super()._set_many(values, expires_at)


class TakesNoneForAbsent(DictCache):
    def _get(self, storage_key):
        value = super()._get(storage_key)
        return MISSING if value is None else value


class ClearsEverything(DictCache):
    def _clear(self):
        self._entries.clear()


class IgnoresVersions(DictCache):
    def make_key(self, key, version=None):
        return f"{self.key_prefix}:{key}"


class CutsLongKeys(DictCache):
    def make_key(self, key, version=None):
        return super().make_key(key, version)[:250]


class ReturnsStorageKeys(DictCache):
    def get_many(self, keys, version=None):
        return {str(key): value for key, value in super().get_many(keys, version).items()}


class RenamesWithoutTimeout(DictCache):
    def _rename(self, storage_key, new_storage_key):
        return super()._rename(storage_key, new_storage_key) and self._touch(new_storage_key, NEVER)


class AnswersOnlySynchronously(DictCache):
    async def aget(self, key, default=None, version=None):
        return default


class ComputesEachTime(DictCache):
    def get_or_set(self, key, default, timeout=300, version=None):
        value = self.get(key, MISSING, version)
        if value is MISSING:
            value = default() if callable(default) else default
            self.set(key, value, timeout, version)
        return value


class CountsOneTooMany(LocMemCache):
    def count(self, version=None):
        return super().count(version) + 1


class ListsTheExpired(LocMemCache):
    def _scan(self, start):
        return (key for key in list(self._entries) if key.startswith(start))


class ChecksItself(LocMemCache):
    def _check_invariants(self):
        raise AssertionError("it is never content")


class KnowsNoBounds(LocMemCache):
    def __init__(self, location, params):
        super().__init__(location, {**params, "OPTIONS": {}})
        self._bounds_entries, self._max_entries = True, None


class EvictsWhenOverwriting(LocMemCache):
    def set(self, key, value, timeout=300, version=None):
        if self._max_entries and len(self._entries) >= self._max_entries:
            self._delete(random.Random(7).choice(sorted(self._entries)))
        super().set(key, value, timeout, version)


class EvictsTheNewest(LocMemCache):
    def set(self, key, value, timeout=300, version=None, *, tags=()):
        if self._max_entries and len(self._entries) >= self._max_entries:
            self._delete(list(self._entries)[-1])
        super().set(key, value, timeout, version)


# The broken backend -> the part of the contract that is run on it, and its tests that have to fail.
BROKEN = {
    AddOverwrites: (
        "values.ValuesContract",
        {
            "test_add_keeps_the_first_value",
            "test_get_tells_a_stored_none_from_absence",
            "test_operations_do_not_tell_a_large_value_from_a_small_one",
        },
    ),
    ShowsExpired: (
        "expiry.ExpiryContract",
        {
            "test_a_fraction_of_a_second_counts",
            "test_add_stores_over_an_expired_entry",
            "test_an_entry_lives_until_its_timeout",
            "test_counting_an_expired_entry_is_an_error",
            "test_entries_of_one_set_many_expire_together",
            "test_expire_at_never_revives",
            "test_expire_at_takes_a_point_in_time",
            "test_get_or_set_computes_over_an_expired_entry",
            "test_touch_gives_a_new_timeout",
            "test_touch_never_revives",
        },
    ),
    TouchRevives: ("expiry.ExpiryContract", {"test_touch_never_revives", "test_expire_at_never_revives"}),
    TakesWholeSeconds: ("expiry.ExpiryContract", {"test_a_fraction_of_a_second_counts"}),
    GivesIncrementsANewTimeout: (
        "counting.CountingContract",
        {"test_incr_keeps_the_timeout", "test_a_number_that_is_created_has_the_timeout"},
    ),
    CountsInText: (
        "counting.CountingContract",
        {
            "test_a_counter_can_be_made_by_any_write",
            "test_a_default_does_not_replace_what_is_no_number",
            "test_a_number_that_would_expire_at_once_is_not_created",
            "test_a_number_whose_tag_was_invalidated_is_created_anew",
            "test_an_int_stays_an_int",
            "test_counting_what_is_no_number_is_an_error",
            "test_decr_subtracts_and_returns_the_new_number",
            "test_incr_adds_and_returns_the_new_number",
            "test_incr_keeps_the_timeout",
            "test_incr_with_a_default_creates_the_number",
            "test_numbers_have_no_bound",
        },
    ),
    LosesIncrements: (
        "threads.ThreadsContract",
        {"test_threads_count_exactly", "test_threads_create_a_counter_once"},
    ),
    GivesAnybodysLockBack: ("locks.LocksContract", {"test_lock_is_free_when_its_time_is_over"}),
    SwapsWithoutComparing: (
        "swaps.SwapsContract",
        {
            "test_a_swap_is_made_where_the_entry_is_as_expected",
            "test_an_entry_is_removed_where_it_is_as_expected",
            "test_of_many_who_want_the_same_each_entry_has_one_winner",
        },
    ),
    StoresLateResults: (
        "batches.BatchesContract",
        {
            "test_those_who_ask_after_a_delete_get_no_old_value",
            "test_what_is_changed_meanwhile_is_not_overwritten",
            "test_what_is_invalidated_meanwhile_is_not_put_back",
        },
    ),
    DropsOldValueBeforeRefusing: ("values.ValuesContract", {"test_set_refuses_what_could_not_be_read_back"}),
    TakesNoneForAbsent: (
        "values.ValuesContract",
        {
            "test_get_returns_an_equal_value_of_the_same_type",
            "test_get_tells_a_stored_none_from_absence",
            "test_set_overwrites",
        },
    ),
    ClearsEverything: ("keys.KeysContract", {"test_clear_removes_only_the_caches_own_keys"}),
    CutsLongKeys: ("keys.KeysContract", {"test_long_keys_that_share_a_start_are_different_keys"}),
    IgnoresVersions: (
        "keys.KeysContract",
        {
            "test_a_version_is_a_whole_number",
            "test_any_key_works_in_every_operation",
            "test_clear_removes_only_the_caches_own_keys",
            "test_incr_version_keeps_the_timeout",
            "test_incr_version_moves_an_entry",
            "test_incr_version_replaces_what_is_there",
            "test_key_function_makes_the_keys",
            "test_the_setting_version_is_the_default_version",
            "test_versions_keep_entries_apart",
        },
    ),
    RenamesWithoutTimeout: (
        "keys.KeysContract",
        {"test_incr_version_keeps_the_timeout", "test_incr_version_replaces_what_is_there"},
    ),
    ListsTheExpired: ("keys.KeysContract", {"test_keys_and_count_pass_over_what_is_not_live"}),
    ReturnsStorageKeys: (
        "many.ManyContract",
        {
            "test_results_have_the_keys_that_the_caller_typed",
            "test_set_many_stores_and_returns_the_keys_that_failed",
        },
    ),
    EvictsTheNewest: (
        "eviction.EvictionContract",
        {
            "test_an_entry_is_found_half_a_turnover_later",
            "test_an_entry_just_written_is_found",
            "test_entries_in_use_stay",
            "test_sessions_stay_while_they_live",
        },
    ),
    KnowsNoBounds: (
        "bounds.BoundsContract",
        {
            "test_a_handle_without_bounds_keeps_to_the_storages",
            "test_max_bytes_of_another_handle_holds",
            "test_a_tagged_value_counts_with_its_bytes",
            "test_a_value_larger_than_everything_is_refused",
            "test_cull_frequency_evicts_a_part_at_once",
            "test_max_bytes_holds",
            "test_max_bytes_bounds_what_stats_tells",
            "test_max_bytes_holds_when_entries_grow",
            "test_max_entries_holds",
            "test_max_entries_holds_within_get_or_set_many",
            "test_max_entries_holds_within_set_many",
            "test_max_entries_may_be_one",
            "test_prefixes_share_the_bound_of_their_storage",
            "test_without_a_setting_it_is_300",
        },
    ),
    EvictsWhenOverwriting: (
        "bounds.BoundsContract",
        {
            "test_a_handle_without_bounds_keeps_to_the_storages",
            "test_bounds_are_kept_with_the_storage",
            "test_a_tagged_value_counts_with_its_bytes",
            "test_cull_frequency_evicts_a_part_at_once",
            "test_overwriting_evicts_nothing",
        },
    ),
}
