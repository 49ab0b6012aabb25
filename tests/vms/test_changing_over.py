"""libvirt dies while a machine changes over to the copy of its disk: no file is lost, whoever comes after.

On the fake; what a real libvirt says then, tests/drivers/test_moving_restart.py and the live tests ask.
"""

import pytest

from portal.core.errors import Denied
from portal.drivers.errors import CallTimeout, HostUnreachable
from portal.drivers.types import CopyStage, DiskCopy, DomainState
from portal.operations import runner, services
from portal.operations.messages import sentence
from portal.operations.models import Operation, StepRecord
from portal.operations.states import State
from tests.vms.test_moving import (  # noqa: F401 (host: a fixture)
    files,
    has_moved,
    host,
    look,
    move,
    taken,
    volumes,
    work,
)
from vms import power

pytestmark = [pytest.mark.database, pytest.mark.django_db]
DIES = ("forgetful", "unaware")


class Died(BaseException):
    """A worker that is killed."""


def again(operation):
    """Let the reaper's worker go on with the operation."""
    runner.carry_on(Operation.objects.get(pk=operation.pk), worker="reaper")
    return Operation.objects.get(pk=operation.pk)


def died_at_pivot(cast, host, how="forgetful"):  # noqa: F811
    """Move the disk of a machine whose libvirt dies when it has just changed over to the copy."""
    host.driver.dies_at_pivot = how
    return work(move(cast, host))


def nothing_is_lost(cast, host, operation):  # noqa: F811
    """Check that both files are kept and counted, and that the portal tells of it and does no more."""
    assert operation.state in {State.UNDOING, State.CANCELLING}
    assert volumes(host) == [1, 1] and taken(host) == {"first": (0, 2), "second": (2, 0)}
    step = StepRecord.objects.get(operation=operation, name="move")
    told = sentence(step.error_code, step.error_raw)
    assert step.error_code == "copy_unsure" and "Neither file is deleted" in told
    assert told.endswith(f"{host.machine.uuid}, {host.disk.path}, {operation.identifiers['to_path']}")
    look(host)
    verb = "start" if host.machine.observed_state == "shutoff" else "shutdown"
    with pytest.raises(Denied, match="Another change"):
        power.act(actor=cast.requester, machine=host.machine, verb=verb)


def name_the_copy(host, operation):  # noqa: F811
    """Do what an operator does by `virsh edit`."""
    domain = host.driver._get(str(host.machine.uuid))
    domain.persistent = domain.persistent.replace(host.disk.path, operation.identifiers["to_path"])


@pytest.mark.parametrize("patience", [0, 5])
@pytest.mark.parametrize("how", DIES)
def test_both_files_stay_while_nobody_knows_which_is_used(cast, host, how, patience, monkeypatch):  # noqa: F811
    """Red when the change-over is not noted, or `do` or `undo` does not ask for the note."""
    monkeypatch.setattr(runner, "PATIENCE", patience)
    begun = died_at_pivot(cast, host, how)
    nothing_is_lost(cast, host, begun)
    nothing_is_lost(cast, host, again(begun))
    [written] = host.driver.written.values()
    assert written == begun.identifiers["to_path"]


@pytest.mark.parametrize("how", DIES)
def test_both_files_stay_also_of_what_is_taken_back(cast, host, how):  # noqa: F811
    """Red when `undo` aborts what was begun, so that the copy is deleted."""
    begun = move(cast, host)

    def before(called, _args):
        if called == "finish_copy":
            host.driver.dies_at_pivot = how
            services.cancel(actor=cast.operator, operation=begun)

    host.before = before
    nothing_is_lost(cast, host, work(begun))
    nothing_is_lost(cast, host, again(begun))


@pytest.mark.parametrize("runs", [True, False])
@pytest.mark.parametrize("how", DIES)
def test_it_goes_on_once_the_machine_has_the_copy(cast, host, how, runs):  # noqa: F811
    """Red when has_changed_over() asks for the copy before it looks what the machine works with."""
    begun, uuid = died_at_pivot(cast, host, how), str(host.machine.uuid)
    name_the_copy(host, begun)
    if how == "unaware":
        # What runs is the old file, as far as libvirt knows.
        nothing_is_lost(cast, host, again(begun))
        host.driver.destroy(uuid)
    if runs:
        host.driver.start(uuid)
    assert again(begun).state == State.FAILED
    assert files(host) == ["/second", "/second" if runs else ""] and volumes(host) == [0, 1]
    assert has_moved(host) and host.disk.changing_to == ""
    assert taken(host) == {"first": (0, 0), "second": (0, 2)}
    assert "too late" in sentence(StepRecord.objects.get(operation=begun, name="move").remark)


@pytest.mark.parametrize("how", DIES)
def test_it_is_taken_back_once_somebody_deleted_the_copy(cast, host, how):  # noqa: F811
    """Red when the note of the change-over outlives the copy: the operation would never end."""
    begun = died_at_pivot(cast, host, how)
    host.driver.delete_volume("second", begun.identifiers["to_volume"])
    assert again(begun).state == State.FAILED
    assert volumes(host) == [1, 0] and not has_moved(host) and host.disk.changing_to == ""
    assert taken(host) == {"first": (0, 2), "second": (0, 0)}
    look(host)
    assert work(move(cast, host)).state == State.SUCCEEDED


def test_a_machine_that_somebody_starts_with_the_old_file_proves_nothing(cast, host):  # noqa: F811
    """Red when a machine that runs with the old file is copied anew, over what its guest wrote."""
    begun, uuid = died_at_pivot(cast, host), str(host.machine.uuid)
    host.driver.start(uuid)
    assert host.driver.domain_info(uuid).state is DomainState.RUNNING
    nothing_is_lost(cast, host, again(begun))
    assert not host.driver._copies


@pytest.mark.parametrize("error", [CallTimeout("late"), HostUnreachable("gone"), Died()])
def test_a_change_over_that_was_not_made_is_made_by_the_next(cast, host, error):  # noqa: F811
    """Red when a copy that still waits for the change-over counts as one of which nothing is known."""
    begun, failed = services.claim(move(cast, host).pk, worker="worker"), []

    def before(called, _args):
        if called == "finish_copy" and not failed:
            failed.append(called)
            raise error

    host.before = before
    if isinstance(error, Died):
        with pytest.raises(Died):
            runner.carry_on(begun, worker="worker")
        again(begun)
    else:
        runner.carry_on(begun, worker="worker")
    # The host's answer came too late for the way there, and so the way back went forward.
    ended = State.SUCCEEDED if isinstance(error, Died) else State.FAILED
    assert Operation.objects.get(pk=begun.pk).state == ended
    assert files(host) == ["/second", "/second"] and volumes(host) == [0, 1] and has_moved(host)
    assert host.disk.changing_to == "" and taken(host)["second"] == (0, 2)


def test_what_goes_off_at_the_second_order_may_have_obeyed_the_first(cast, host):  # noqa: F811
    """Red when has_changed_over() passes on that nothing was ordered now: the sentence would be another."""
    calls = []

    def before(called, _args):
        calls.append(called)
        if called == "finish_copy" and calls.count(called) == 1:
            raise CallTimeout("late")
        if called == "finish_copy":
            host.driver.destroy(str(host.machine.uuid))

    host.before = before
    nothing_is_lost(cast, host, work(move(cast, host)))


def test_a_host_that_is_still_at_it_is_waited_for(cast, host, monkeypatch):  # noqa: F811
    """Red when what libvirt changes over at this moment is not worth another look."""
    monkeypatch.setattr(runner, "PATIENCE", 5)
    monkeypatch.setattr(runner, "PAUSE", 0)
    real, looks = host.driver.disk_copy, []

    def disk_copy(*args):
        looks.append(args)
        return real(*args) if len(looks) > 2 else DiskCopy(CopyStage.COPYING)

    def before(called, args):
        if called == "finish_copy" and not looks:
            host.driver.finish_copy(*args)
            host.driver.disk_copy = disk_copy
            raise CallTimeout("late")

    host.before = before
    assert work(move(cast, host)).state == State.SUCCEEDED
    assert len(looks) > 2 and has_moved(host) and volumes(host) == [0, 1]


def test_what_goes_off_before_it_was_told_is_known_to_have_the_old_file(cast, host):  # noqa: F811
    """Red when _forget() heeds a cancellation first: an operator would be asked for nothing."""
    begun = move(cast, host)

    def before(called, _args):
        if called == "finish_copy":
            services.cancel(actor=cast.operator, operation=begun)
            host.driver.destroy(str(host.machine.uuid))

    host.before = before
    assert work(begun).state == State.CANCELLED
    assert files(host) == ["/first", ""] and volumes(host) == [1, 0] and not has_moved(host)
    assert host.disk.changing_to == "" and taken(host) == {"first": (0, 2), "second": (0, 0)}


def test_a_cancellation_before_it_is_heeded(cast, host):  # noqa: F811
    """Red when change_over() does not look for one: the machine would be changed over all the same."""
    begun, looks = move(cast, host), []

    def before(called, _args):
        if called == "disk_copy":
            looks.append(called)
            if len(looks) == 3:
                services.cancel(actor=cast.operator, operation=begun)

    host.before = before
    assert work(begun).state == State.CANCELLED
    assert files(host) == ["/first", "/first"] and volumes(host) == [1, 0]
