"""Each row of the tables of faults has tests, with threads and with processes: this says which."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "reference" / "faults.md"
BOTH = "executors/process/test_faults_in_both.py"
DEATH, ERRORS = "executors/process/test_death.py", "executors/process/test_errors.py"
CITIZENS = "executors/process/test_citizens.py"
PROGRAMS, MEMORY = "executors/process/test_programs.py", "executors/process/test_memory.py"
WATCHES, WATCH = "devices/health/test_director_watches.py", "devices/health/test_nvml_watch.py"

# The beginning of each row, and the tests that show it: file, and names of functions in it. A test of `BOTH`, of
# `WATCHES`, of closed streams and of forks runs with threads and with processes; what NVML says is the same for both.
EVERYWHERE = {
    "the function raises": {
        "public/test_job_errors.py": "test_an_exception_is_the_very_object_that_was_raised",
        "public/test_retries.py": "test_an_error_that_is_named_is_worth_another_try",
        ERRORS: "test_an_exception_is_itself_and_tells_where_it_was_raised test_whatever_a_function_raises",
    },
    "it raises `SystemExit`": {BOTH: "test_what_would_end_a_program_ends_a_job"},
    "one item of a batch fails": {
        BOTH: "test_an_item_fails_alone_if_the_function_says_so test_an_item_fails_alone_if_failures_are_isolated"
    },
    "the call, or the loader, never returns": {
        "public/test_deadline_timeout.py": "test_a_timeout_counts_running_only "
        "test_a_deadline_that_passes_while_the_job_runs test_what_a_timed_out_call_does_later_changes_nothing",
        "public/test_life.py": "test_a_call_that_does_not_end_is_left_behind_with_a_warning",
        BOTH: "test_a_loader_that_hangs_fails_its_job_at_the_deadline",
    },
    "the loader of a model raises": {
        "public/test_models.py": "test_a_failed_load_fails_the_jobs_that_wait_with_the_loaders_own_error "
        "test_later_jobs_try_again",
        "public/test_failed_loads.py": "test_a_job_whose_load_fails_goes_to_a_device_where_it_can_be_loaded "
        "test_only_where_no_device_is_left_it_fails_with_the_loaders_own_error "
        "test_health_counts_it_where_the_model_is_loaded_elsewhere test_in_child_processes_too",
        BOTH: "test_a_loader_that_fails_once_and_then_not test_a_loader_that_always_fails_fails_each_job",
    },
    "the device's memory is full": {
        "public/test_memory_faults.py": "test_a_batch_that_does_not_fit_is_halved_until_it_does "
        "test_the_size_that_fits_is_remembered_and_raised_slowly "
        "test_one_item_that_does_not_fit_is_tried_once_more_and_fails_with_the_sizes "
        "test_an_item_that_does_not_fit_goes_to_a_device_with_more_memory",
        "executors/process/test_streams.py": "test_a_batch_that_lacks_memory_is_halved "
        "test_a_lack_of_memory_comes_without_the_framework",
        "devices/health/test_framework_errors.py": "test_memory test_what_is_imported_lets_go_of_its_caches",
    },
    "CUDA's context is broken (": {
        "public/test_memory_faults.py": "test_a_broken_context_closes_the_device_for_good "
        "test_a_job_that_meets_a_broken_context_is_tried_elsewhere_if_it_may",
        "devices/health/test_framework_errors.py": "test_each_sticky_code_by_number_name_and_words",
    },
    "a GPU falls off the bus": {
        WATCHES: "test_a_lost_gpu_gets_no_work_until_it_is_back",
        "devices/health/test_nvml_checkup.py": "test_codes_of_a_lost_gpu test_the_recovery_that_the_driver_asks_for",
    },
    "the driver reports a fatal error": {WATCHES: "test_a_fatal_xid_takes_the_waiting_work_elsewhere"},
    "NVML hangs for a GPU": {WATCH: "test_a_call_that_hangs_while_others_answer"},
    "NVML hangs for all": {WATCH: "test_a_driver_that_hangs_for_all test_the_only_gpu_hangs"},
    "the driver reports another error": {
        WATCHES: "test_a_gpu_that_wears_out_works_on_with_a_warning",
        "devices/health/test_nvml_checkup.py": "test_worn_memory_makes_a_gpu_degraded",
    },
    "there is no NVML": {WATCH: "test_without_a_driver_the_watch_ends_by_itself"},
    "the Director's own coroutine fails": {
        "runtime/test_failures.py": "test_a_failing_director_fails_all_open_jobs",
        BOTH: "test_a_director_that_fails_fails_its_jobs_and_leaves_nothing",
    },
    "the event loop is closed": {
        "runtime/test_surroundings.py": "test_the_loop_is_closed_under_the_director",
        BOTH: "test_a_loop_that_ends_under_a_director_leaves_nothing",
        DEATH: "test_a_loop_that_ends_takes_its_children_along",
    },
    "the queue is full": {
        "public/test_queue_bound.py": "test_a_full_queue_refuses_and_says_so "
        "test_run_waits_for_room_and_is_served_in_order",
        BOTH: "test_a_full_queue_refuses",
    },
    "the Director closes, or the program ends": {
        "public/test_close.py": "test_after_the_timeout_running_jobs_are_told test_the_rest_fail_with_job_aborted "
        "test_what_waits_fails_with_director_closed test_a_program_ends_whose_call_never_does",
    },
    "your program's stdin": {PROGRAMS: "test_closed_standard_streams"},
    "a slot's thread can't be started": {
        "runtime/test_starts.py": "test_one_thread_that_cannot_be_started_stops_nobody "
        "test_no_thread_for_long_fails_what_waits_with_the_cause_and_what_helps"
    },
    "your program is stopped": {
        "executors/process/test_stopped.py": "test_a_program_that_is_stopped_and_goes_on",
        WATCH: "test_a_process_that_was_stopped_blames_no_device",
    },
    "a job forks": {"executors/process/test_forks.py": "test_a_copy_ends_where_its_call_comes_back"},
    "your program forks": {PROGRAMS: "test_a_fork_of_a_process_with_an_open_director"},
    "your program is killed": {
        "ipc/sharing/test_processes.py": "test_four_processes_share_and_one_is_killed",
        MEMORY: "test_a_killed_parent_leaves_no_memory test_no_names_are_left_in_shared_memory",
    },
}
IN_PROCESSES = {
    "a fault in native code": {
        DEATH: "test_a_child_that_dies_in_a_call test_only_the_job_that_ran_is_lost test_a_lost_job_is_tried_again",
        BOTH: "test_jobs_that_lose_their_children_in_a_row_close_the_device",
    },
    "the child dies before it has begun": {
        DEATH: "test_a_child_that_died_idle_is_replaced_without_a_word "
        "test_a_large_array_for_a_child_that_died_idle_goes_to_the_next",
        BOTH: "test_the_third_child_that_dies_before_it_begins_is_the_last",
        "executors/process/test_prefetch.py": "test_a_child_that_dies_loses_only_the_call_that_ran",
    },
    "the call, or the loader, never returns": {
        DEATH: "test_a_call_that_asks_leaves_at_its_timeout_and_its_child_stays "
        "test_a_call_that_does_not_ask_is_told_and_cleans_up test_a_call_that_does_not_listen_is_killed "
        "test_a_child_that_stops_within_a_call_is_ended_by_the_timeout "
        "test_a_loader_that_hangs_is_ended_by_the_close",
    },
    "the child takes no call": {
        DEATH: "test_a_child_that_has_stopped_takes_no_call_and_is_replaced test_a_long_call_is_not_silence"
    },
    "a child does not end": {BOTH: "test_a_child_that_not_even_sigkill_ends_is_left_behind"},
    "what the function raises can't be pickled": {
        ERRORS: "test_an_exception_that_can_not_travel_is_described test_an_exception_of_a_local_class",
        BOTH: "test_what_can_not_be_pickled_is_an_error_all_the_same",
    },
    "arguments, a result or a value": {
        ERRORS: "test_arguments_that_can_not_be_pickled test_results_that_can_not_be_pickled "
        "test_arguments_that_can_not_be_unpickled test_results_that_can_not_be_unpickled",
        "executors/process/test_streams.py": "test_values_that_can_not_travel",
        PROGRAMS: "test_without_cloudpickle_each_job_says_what_helps",
    },
    "there is no memory, or no descriptor": {
        MEMORY: "test_out_of_memory_is_an_error_of_the_job",
        "executors/process/test_parts.py": "test_a_descriptor_for_which_there_is_no_number_"
        "is_missed_by_its_message_alone",
        "executors/process/test_wire.py": "test_a_segment_that_can_not_be_received_fails_its_own_call",
    },
    "a job has started a program": {
        "executors/process/test_wire.py": "test_no_child_is_left_that_a_job_has_started",
        CITIZENS: "test_programs_that_jobs_have_started_end_when_the_parent_is_killed",
    },
    "a child, or something in it, writes": {
        "executors/process/test_wire.py": "test_garbage_ends_the_child_and_never_becomes_a_value"
    },
    "the main module": {
        PROGRAMS: "test_a_main_module_without_a_guard_is_said_clearly_and_once "
        "test_a_main_module_that_starts_something_else"
    },
    "the program is in a zip file": {CITIZENS: "test_a_director_in_a_zip_file_is_refused_when_it_starts"},
    "children can't be started": {DEATH: "test_jobs_wait_while_no_child_can_be_started"},
    "children end before": {DEATH: "test_children_that_can_not_start_fail_their_jobs"},
    "CUDA's context is broken": {"executors/process/test_streams.py": "test_a_child_with_a_broken_context_is_replaced"},
    "your program is killed": {PROGRAMS: "test_children_die_with_a_parent_that_is_killed"},
    "`close` finds calls": {
        DEATH: "test_a_call_that_runs_at_the_close_is_ended",
        "executors/process/test_server_end.py": "test_what_does_not_end_is_given_up_within_a_time",
    },
}
SECTIONS = {"What happens then": EVERYWHERE, "In processes": IN_PROCESSES}


def rows(section: str) -> list[str]:
    """The first cells of the table of a section."""
    text = PAGE.read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [line[2:].partition(" | ")[0] for line in lines if not line.startswith("| fault |")]


@pytest.mark.parametrize("section", SECTIONS)
def test_each_row_has_its_tests_and_each_of_these_its_row(section: str) -> None:
    found = rows(section)
    begins = SECTIONS[section]
    assert [row for row in found if not any(row.startswith(begin) for begin in begins)] == []
    assert [begin for begin in begins if not any(row.startswith(begin) for row in found)] == []
    assert len(found) == len(begins)


@pytest.mark.parametrize("section", SECTIONS)
def test_the_tests_are_there(section: str) -> None:
    for row, tests in SECTIONS[section].items():
        for file, names in tests.items():
            there = set(re.findall(r"^(?:async )?def (test_\w+)", (TESTS / file).read_text(), re.MULTILINE))
            assert set(names.split()) <= there, f"{row}: {file}"
