"""Fixtures for every test: people of each role in one project."""

import gc
import uuid
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.db import connection
from django.test import TransactionTestCase
from django.test.utils import override_settings, setup_databases, teardown_databases
from django.utils import timezone

import portal.celery  # noqa: F401 (services queue work through the current app)
from portal.accounts.models import Membership, Project, Role, User
from portal.audit import triggers
from portal.core.errors import Denied
from portal.operations import ledger
from portal.operations.models import Operation
from portal.operations.registry import Asking, Kind, Outlook, register
from portal.operations.services import HEARTBEAT_LAPSE
from portal.operations.spec import RequestSpec
from tests.calling import Caller
from tests.dying import Workers
from tests.emptying import empty_tables
from tests.secondhost.lab import Lab
from tests.transactions import be_strict

GIB = 1024**3


def place_where_told(operation):
    """Hold what the test named as capacity."""
    takes = operation.identifiers.get("takes", ())
    ledger.hold(operation, {(scope, what): amount for scope, what, amount in takes})


class AskingForFiles(Asking):
    """Quota of the project alone."""

    def amounts(self, operation, sizes):
        return {(f"project:{operation.project_id}", name): value for name, value in sizes.items()}

    def check_lowered(self, spec):
        if spec["sizes"]["disk"] < GIB:
            raise Denied("The disk is smaller than the image.", field="disk")

    def outlooks(self, operations):
        return {operation.pk: Outlook() for operation in operations}

    def edit_url(self, operation):
        return f"/edit/{operation.pk}/"

    def copy_url(self, operation):
        return f"/copy/{operation.pk}/"


#: A kind for tests of the operations themselves; its steps are in killed_worker.py.
FILES = Kind("test.files", "Make files", (), place=place_where_told, asking=AskingForFiles())
register(FILES)


def let_heartbeats_lapse():
    """Make every worker look as silent as a dead one."""
    Operation.objects.update(heartbeat_at=timezone.now() - HEARTBEAT_LAPSE - timedelta(seconds=1))


def make_spec(**sizes):
    return RequestSpec(
        kind=FILES.name,
        sizes={"vcpu": 1, "memory": GIB, "disk": 2 * GIB, **sizes},
        pinned={"image": "sha256:0", "hostname": "example"},
    )


def pytest_collection_finish():
    """Look less often for garbage in circles: all that was imported is there to stay."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def pytest_collection_modifyitems(items):
    """Refuse a test that touches the database without the mark `database`: PostgreSQL would never see it."""
    unmarked = [
        item.nodeid
        for item in items
        if (item.get_closest_marker("django_db") or {"db", "transactional_db"} & set(item.fixturenames))
        and not item.get_closest_marker("database")
    ]
    if unmarked:
        raise pytest.UsageError(f"not marked `database`: {', '.join(unmarked)}")


@pytest.fixture(scope="session", autouse=True)
def quick_passwords(django_test_environment):
    """Hash passwords fast; portals in processes of their own hash as they always do."""
    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]):
        yield


@pytest.fixture(scope="session", autouse=True)
def strict_transactions(django_test_environment):
    """Each test that writes to the trail, or locks a row, outside a transaction of the portal's is red."""
    with pytest.MonkeyPatch.context() as patch:
        be_strict(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_flush():
    """Empty the database after a transactional test in the quicker way of tests/emptying.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", lambda case: empty_tables())
        yield


@pytest.fixture(scope="session")
def django_db_setup(django_test_environment, django_db_blocker, django_db_modify_db_settings):
    """Make the database for any choice of tests: pytest-django looks at marks, and `cast` has none.

    Processes side by side (-n 3) have one each.
    """
    with django_db_blocker.unblock():
        made = setup_databases(verbosity=0, interactive=False)
    yield
    with django_db_blocker.unblock():
        teardown_databases(made, verbosity=0)


@pytest.fixture
def cast(db_or_transactional):
    """One project and, by the name of the role, one person each."""
    project = Project.objects.create(name="example")
    people = {}
    for role in Role.values:
        people[role] = User.objects.create(username=role)
        Membership.objects.create(user=people[role], project=project, role=role)
    return SimpleNamespace(project=project, **people)


@pytest.fixture
def chief(cast):
    """Somebody who administers every project, and so all that belongs to none."""
    person = User.objects.create(username="chief")
    Membership.objects.create(user=person, role=Role.ADMIN)
    return person


@pytest.fixture
def db_or_transactional(request):
    """The database the test asked for: a transactional one where threads must see each other's rows."""
    if "trail_that_can_be_flushed" not in request.fixturenames:
        request.getfixturevalue("db")


@pytest.fixture
def trail_back(django_db_setup, django_db_blocker):
    """Ends after the flush of a transactional test: the trail is protected again."""
    yield
    with django_db_blocker.unblock(), connection.schema_editor() as editor:
        triggers.install(None, editor)


@pytest.fixture
def trail_that_can_be_flushed(trail_back, transactional_db):
    """Ends before the flush of a transactional test, which the triggers would refuse."""
    yield
    with connection.schema_editor() as editor:
        triggers.remove(None, editor)


@pytest.fixture(scope="module")
def worker(request, django_db_setup):
    """Run a worker process of the module that the tests name as WORKER to its end; return its exit status."""
    workers = Workers(request.module.WORKER)
    yield workers
    workers.close()


@pytest.fixture
def new_token():
    return uuid.uuid4


def pytest_report_header():
    return f"database: {connection.vendor}"


@pytest.fixture(scope="module")
def lab():
    """A network for real further hosts; see tests/secondhost/lab.py. It and they end with the module."""
    with Lab() as made:
        yield made


@pytest.fixture
def second_host(lab):
    """A real further host of the test's own: libvirtd and SSH server in their own namespaces."""
    host = lab.host()
    yield host
    host.power_cut()


@pytest.fixture
def caller(tmp_path):
    """Somebody at a computer with a key of their own; see tests/calling.py."""
    folder = tmp_path / "caller"
    folder.mkdir()
    return Caller(folder)
