"""The three factories: what each environment gives, what it refuses, and how long an object lives."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from app import stores
from app.errors import ConfigurationError
from app.settings import load_settings
from app.stores import close_stores, get_budget_store, get_checkpoint_store, get_idempotency_store
from app.stores.choice import StoreKind, choose
from app.stores.holder import Holder
from app.stores.idempotency.contract import Completed, Started
from tests.support.planted import planted
from tests.support.servers.valkey import ValkeyServer

FACTORIES: Final[dict[StoreKind, Callable[..., Any]]] = {
    "budget": get_budget_store,
    "checkpoint": get_checkpoint_store,
    "idempotency": get_idempotency_store,
}
KINDS: Final[tuple[StoreKind, ...]] = ("budget", "checkpoint", "idempotency")
ON_REDIS: Final[dict[StoreKind, str]] = {"budget": "RedisBudgetStore", "idempotency": "RedisIdempotencyStore"}
MEMORY: Final = {
    "budget": "InMemoryBudgetStore",
    "checkpoint": "InMemoryCheckpointStore",
    "idempotency": "InMemoryIdempotencyStore",
}
SQLITE: Final = {
    "budget": "SqliteBudgetStore",
    "checkpoint": "SqliteCheckpointStore",
    "idempotency": "SqliteIdempotencyStore",
}
SECRET: Final = planted("stores.secret")  # a password that must never be seen
REDIS: Final = f"redis://user:{SECRET}@localhost:6379/0"
POSTGRES: Final = f"postgresql://user:{SECRET}@localhost/nova"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Give a function that sets variables; ``{tmp}`` in a value is a temporary directory."""

    def setting(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value.replace("{tmp}", str(tmp_path)))

    return setting


def variable_of(kind: StoreKind) -> str:
    """Return the variable that chooses a store explicitly."""
    return f"{kind.upper()}_STORE"


def refusal(kind: StoreKind) -> ConfigurationError:
    """Ask a factory for its store and return the error that it must raise."""
    with pytest.raises(ConfigurationError) as caught:
        FACTORIES[kind]()
    return caught.value


class TestDetection:
    """What the addresses alone decide."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_nothing_configured_is_memory(self, kind: StoreKind) -> None:
        """Without any variable every store is in memory, outside of production."""
        assert type(FACTORIES[kind]()).__name__ == MEMORY[kind]

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("url", ["sqlite:///{tmp}/a.db", "SQLite:///{tmp}/a.db"])
    def test_a_sqlite_database_url_is_sqlite(
        self, kind: StoreKind, url: str, environment: Callable[..., None], tmp_path: Path
    ) -> None:
        """A sqlite:/// DATABASE_URL puts all three stores into that file, however its scheme is written."""
        environment(DATABASE_URL=url)

        assert type(FACTORIES[kind]()).__name__ == SQLITE[kind]
        assert load_settings().database_file == tmp_path / "a.db"

    @pytest.mark.parametrize("kind", ON_REDIS)
    @pytest.mark.parametrize("url", [REDIS, REDIS.replace("redis:", "rediss:"), REDIS.upper()])
    @pytest.mark.parametrize("database_url", ["", "sqlite:///{tmp}/a.db", POSTGRES])
    def test_a_redis_url_wins_for_budgets_and_idempotency(
        self, kind: StoreKind, url: str, database_url: str, environment: Callable[..., None]
    ) -> None:
        """With REDIS_URL they are on Redis, whatever DATABASE_URL says."""
        environment(REDIS_URL=url, DATABASE_URL=database_url)

        assert choose(kind, load_settings()).backend == "redis"

    def test_a_redis_url_says_nothing_about_checkpoints(self, environment: Callable[..., None]) -> None:
        """Checkpoints follow DATABASE_URL alone."""
        environment(REDIS_URL=REDIS)

        assert type(get_checkpoint_store()).__name__ == MEMORY["checkpoint"]

    @pytest.mark.parametrize(
        "scheme", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+asyncpg", "POSTGRES"]
    )
    def test_a_postgres_database_url_is_postgres_for_checkpoints(
        self, scheme: str, environment: Callable[..., None]
    ) -> None:
        """Each spelling of PostgreSQL's scheme is taken."""
        environment(DATABASE_URL=POSTGRES.replace("postgresql", scheme))

        assert choose("checkpoint", load_settings()).backend == "postgres"

    @pytest.mark.parametrize("kind", ON_REDIS)
    def test_a_postgres_database_url_leaves_the_others_in_memory(
        self, kind: StoreKind, environment: Callable[..., None]
    ) -> None:
        """PostgreSQL keeps checkpoints only; without REDIS_URL the other stores are in memory."""
        environment(DATABASE_URL=POSTGRES)

        assert type(FACTORIES[kind]()).__name__ == MEMORY[kind]

    @pytest.mark.parametrize("kind", KINDS)
    def test_an_empty_variable_is_unset(self, kind: StoreKind, environment: Callable[..., None]) -> None:
        """Empty variables, as a compose file leaves them, choose what no variables choose."""
        environment(
            BUDGET_STORE="",
            CHECKPOINT_STORE="",
            IDEMPOTENCY_STORE="",
            REDIS_URL="",
            DATABASE_URL="",
            NOVA_DATA_DIR="",
            ENV="",
        )

        assert type(FACTORIES[kind]()).__name__ == MEMORY[kind]


class TestExplicitChoice:
    """What ``…_STORE`` says is met, or refused by name."""

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("written", ["memory", "MEMORY", " Memory "])
    def test_memory_wins_over_addresses(self, kind: StoreKind, written: str, environment: Callable[..., None]) -> None:
        """An explicit memory is memory, also beside addresses and in production, in any case."""
        environment(**{variable_of(kind): written}, REDIS_URL=REDIS, DATABASE_URL=POSTGRES, ENV="production")

        assert type(FACTORIES[kind]()).__name__ == MEMORY[kind]

    @pytest.mark.parametrize("kind", KINDS)
    def test_sqlite_without_a_path_lies_in_the_data_directory(
        self, kind: StoreKind, environment: Callable[..., None], tmp_path: Path
    ) -> None:
        """An explicit sqlite without a sqlite:/// URL keeps its file in NOVA_DATA_DIR."""
        environment(**{variable_of(kind): "sqlite"}, NOVA_DATA_DIR="{tmp}/data", DATABASE_URL=POSTGRES)

        assert type(FACTORIES[kind]()).__name__ == SQLITE[kind]
        assert load_settings().database_file == tmp_path / "data" / "nova.db"

    @pytest.mark.parametrize("kind", ON_REDIS)
    def test_redis_needs_its_url(self, kind: StoreKind, environment: Callable[..., None]) -> None:
        """An explicit redis without REDIS_URL is refused; the error names both variables."""
        environment(**{variable_of(kind): "redis"})

        error = refusal(kind)

        assert error.variable == "REDIS_URL"
        assert f"{variable_of(kind)}=redis needs REDIS_URL" in str(error)

    @pytest.mark.parametrize("database_url", ["", "sqlite:///{tmp}/a.db"])
    def test_postgres_needs_its_url(self, database_url: str, environment: Callable[..., None]) -> None:
        """An explicit postgres without a PostgreSQL DATABASE_URL is refused."""
        environment(CHECKPOINT_STORE="postgres", DATABASE_URL=database_url)

        assert refusal("checkpoint").variable == "DATABASE_URL"

    @pytest.mark.parametrize(
        ("kind", "name"),
        [
            ("budget", "postgres"),
            ("idempotency", "postgres"),
            ("checkpoint", "redis"),
            *((kind, "dynamodb") for kind in KINDS),
        ],
    )
    def test_an_unknown_name_is_refused(self, kind: StoreKind, name: str, environment: Callable[..., None]) -> None:
        """A backend that a store does not have is refused; the error names the ones it has."""
        environment(**{variable_of(kind): name})

        error = refusal(kind)

        assert error.variable == variable_of(kind)
        assert "sqlite, memory" in str(error)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        ("variable", "url"),
        [
            ("DATABASE_URL", "mysql://localhost/nova"),
            ("DATABASE_URL", "redis://localhost"),
            ("DATABASE_URL", "localhost/nova"),
            ("DATABASE_URL", "postgresql:localhost"),
            ("REDIS_URL", "http://localhost"),
            ("REDIS_URL", "localhost:6379"),
        ],
    )
    def test_a_url_of_the_wrong_kind_is_refused(
        self, kind: StoreKind, variable: str, url: str, environment: Callable[..., None]
    ) -> None:
        """A wrong scheme, or none, is refused by every factory rather than ignored."""
        environment(**{variable: url})

        assert refusal(kind).variable == variable

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        "url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://host/a.db", "sqlite:///a.db?mode=ro"]
    )
    def test_a_sqlite_url_names_a_file_and_nothing_else(
        self, kind: StoreKind, url: str, environment: Callable[..., None]
    ) -> None:
        """Without a path, with a host or with parameters it is refused; no file of a strange name appears."""
        environment(DATABASE_URL=url)

        assert refusal(kind).variable == "DATABASE_URL"

    @pytest.mark.parametrize("kind", ON_REDIS)
    @pytest.mark.parametrize("url", [REDIS, REDIS.replace("redis:", "rediss:")])
    def test_a_store_on_redis_is_built_without_a_connection(
        self, kind: StoreKind, url: str, environment: Callable[..., None]
    ) -> None:
        """Nobody need listen at REDIS_URL, and what is kept of it shows no password."""
        environment(REDIS_URL=url)

        assert type(FACTORIES[kind]()).__name__ == ON_REDIS[kind]
        assert SECRET not in str(stores._open)

    def test_the_same_database_is_the_same_store(self, environment: Callable[..., None]) -> None:
        """One address and one set of limits give one object; another address gives another, and none shows it."""
        environment(DATABASE_URL=POSTGRES, NOVA_POSTGRES_POOL_SIZE="3", NOVA_AUTO_MIGRATE="false")
        first, again = get_checkpoint_store(), get_checkpoint_store()
        environment(DATABASE_URL=POSTGRES + "2")

        other = get_checkpoint_store()

        assert type(first).__name__ == "CheckpointStore"
        assert first is again
        assert first is not other
        assert SECRET not in str(stores._open)


class TestProduction:
    """In production nothing falls back in silence."""

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("env", ["prod", "production", "PRODUCTION"])
    def test_memory_that_nobody_chose_is_refused(
        self, kind: StoreKind, env: str, environment: Callable[..., None]
    ) -> None:
        """Without configuration the factory refuses, and names the variable that would be the remedy."""
        environment(ENV=env)

        error = refusal(kind)

        assert error.variable == ("DATABASE_URL" if kind == "checkpoint" else "REDIS_URL")
        assert "sqlite:////" in str(error)
        assert f"{variable_of(kind)}=memory" in str(error)

    @pytest.mark.parametrize("kind", ["budget", "idempotency"])
    def test_beside_postgresql_the_remedy_is_not_to_give_it_up(
        self, kind: StoreKind, environment: Callable[..., None]
    ) -> None:
        """Who has a DATABASE_URL is told of Redis and of a file beside it, not of another DATABASE_URL."""
        environment(ENV="production", DATABASE_URL=POSTGRES)

        remedy = str(refusal(kind)).partition(": set ")[2]

        assert remedy.startswith(f"REDIS_URL, or {variable_of(kind)}=sqlite")
        assert "DATABASE_URL" not in remedy

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_configured_file_is_no_fallback(self, kind: StoreKind, environment: Callable[..., None]) -> None:
        """A sqlite:/// DATABASE_URL is a choice, in production too."""
        environment(ENV="production", DATABASE_URL="sqlite:///{tmp}/a.db")

        assert type(FACTORIES[kind]()).__name__ == SQLITE[kind]

    @pytest.mark.parametrize("kind", KINDS)
    def test_other_environments_are_not_production(self, kind: StoreKind, environment: Callable[..., None]) -> None:
        """Any other name of an environment permits memory."""
        environment(ENV="staging")

        assert type(FACTORIES[kind]()).__name__ == MEMORY[kind]


class TestLifetime:
    """One object per configuration, until ``close_stores``."""

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("backend", ["memory", "sqlite"])
    def test_the_same_configuration_gives_the_same_object(
        self, kind: StoreKind, backend: str, environment: Callable[..., None]
    ) -> None:
        """Asked twice, a factory gives one object; asked for a new one, another, which it does not keep."""
        environment(**{variable_of(kind): backend})

        first, second = FACTORIES[kind](), FACTORIES[kind](load_settings())
        new = FACTORIES[kind](force_new=True)

        assert first is second
        assert new is not first
        assert FACTORIES[kind]() is first

    @pytest.mark.parametrize("kind", KINDS)
    def test_another_configuration_gives_another_object(
        self, kind: StoreKind, environment: Callable[..., None]
    ) -> None:
        """Two files are two stores; back at the first configuration, the first object is there."""
        environment(DATABASE_URL="sqlite:///{tmp}/a.db")
        first = FACTORIES[kind]()
        environment(DATABASE_URL="sqlite:///{tmp}/b.db")
        second = FACTORIES[kind]()
        environment(DATABASE_URL="sqlite:///{tmp}/a.db")

        assert first is not second
        assert FACTORIES[kind]() is first

    @pytest.mark.parametrize(
        ("variable", "other"),
        [("REDIS_URL", f"{REDIS}1"), ("NOVA_REDIS_POOL_SIZE", "7"), ("NOVA_REDIS_TIMEOUT_S", "0.5")],
    )
    @pytest.mark.parametrize("kind", ON_REDIS)
    def test_what_configures_a_store_on_redis_tells_it_from_another(
        self, kind: StoreKind, variable: str, other: str, environment: Callable[..., None]
    ) -> None:
        """Another database, pool or time limit is another object; the same ones give the same."""
        environment(REDIS_URL=REDIS)
        first, again = FACTORIES[kind](), FACTORIES[kind]()
        environment(**{variable: other})

        assert again is first
        assert FACTORIES[kind]() is not first

    @pytest.mark.parametrize("kind", KINDS)
    def test_settings_that_are_passed_win_over_the_environment(
        self, kind: StoreKind, environment: Callable[..., None]
    ) -> None:
        """A factory that is given settings does not look at the variables."""
        settings = load_settings()
        environment(**{variable_of(kind): "dynamodb"})

        assert type(FACTORIES[kind](settings)).__name__ == MEMORY[kind]

    def test_threads_that_ask_at_once_get_one_object(self) -> None:
        """Two threads never end up with two memory stores, each knowing half."""
        barrier = threading.Barrier(8)
        found: list[object] = []

        def ask() -> None:
            barrier.wait()
            found.append(get_idempotency_store())

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(found) == 8
        assert len({id(store) for store in found}) == 1

    async def test_close_stores_closes_all_and_forgets_them(self, environment: Callable[..., None]) -> None:
        """After it the factories build new objects."""
        environment(DATABASE_URL="sqlite:///{tmp}/a.db")
        before = [FACTORIES[kind]() for kind in KINDS]

        await close_stores()

        assert all(FACTORIES[kind]() is not old for kind, old in zip(KINDS, before, strict=True))

    async def test_a_store_that_cannot_be_closed_does_not_keep_the_others_open(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Every store is closed, and the failure is told afterwards."""
        closed = []

        class Stuck:
            async def close(self) -> None:
                raise OSError("stuck")

        class Fine:
            async def close(self) -> None:
                closed.append(self)

        monkeypatch.setattr(stores, "_open", {("a",): Stuck(), ("b",): Fine()})

        with pytest.raises(ExceptionGroup) as caught:
            await close_stores()

        assert [str(error) for error in caught.value.exceptions] == ["stuck"]
        assert len(closed) == 1
        assert stores._open == {}

    @pytest.mark.parametrize("kind", KINDS)
    def test_building_touches_no_file(self, kind: StoreKind, environment: Callable[..., None], tmp_path: Path) -> None:
        """A factory opens nothing: the directory of a SQLite store comes into being with its first verb."""
        environment(DATABASE_URL="sqlite:///{tmp}/state/a.db")

        FACTORIES[kind]()

        assert not (tmp_path / "state").exists()

    @pytest.mark.parametrize("backend", ["memory", "sqlite"])
    def test_one_object_serves_several_loops_one_after_another(
        self, backend: str, environment: Callable[..., None]
    ) -> None:
        """What one event loop records, the next ones find through the same objects, closed in between or not."""
        environment(**{variable_of(kind): backend for kind in KINDS})
        idempotency, budget, checkpoints = get_idempotency_store(), get_budget_store(), get_checkpoint_store()
        holder = Holder.current()

        async def first() -> None:
            started = await idempotency.begin("k", "f", holder=holder)
            assert isinstance(started, Started)
            await idempotency.complete("k", started.token, b"r")
            await budget.set_limit("run:1", 7)
            await checkpoints.create("run-1", inputs={"a": 1})

        async def later() -> tuple[object, ...]:
            return (
                await idempotency.begin("k", "f", holder=holder),
                [limit.amount for limit in await budget.limits()],
                (await checkpoints.head("run-1")) is not None,
            )

        asyncio.run(first())
        second = asyncio.run(later())
        for store in (idempotency, budget, checkpoints):
            asyncio.run(store.close())
        third = asyncio.run(later())

        assert second == third == (Completed(result=b"r"), [7], True)
        assert get_idempotency_store() is idempotency

    def test_stores_on_redis_serve_several_loops_one_after_another(
        self, valkey: ValkeyServer, environment: Callable[..., None]
    ) -> None:
        """What one event loop records, the next ones find, whether it closed its connections or just ended."""
        environment(REDIS_URL=valkey.url)
        idempotency, budget, holder = get_idempotency_store(), get_budget_store(), Holder.current()

        async def first() -> None:
            started = await idempotency.begin("k", "f", holder=holder)
            assert isinstance(started, Started)
            await idempotency.complete("k", started.token, b"r")
            await budget.set_limit("run:1", 7)

        async def later() -> tuple[object, ...]:
            return (
                await idempotency.begin("k", "f", holder=holder),
                [limit.amount for limit in await budget.limits()],
            )

        async def later_and_closed() -> tuple[object, ...]:
            found = await later()
            await close_stores()
            return found

        asyncio.run(first())
        found = [asyncio.run(later()), asyncio.run(later_and_closed()), asyncio.run(later_and_closed())]

        assert found == [(Completed(result=b"r"), [7])] * 3
        assert get_idempotency_store() is not idempotency


class TestSecrets:
    """A password that is planted in every variable is seen nowhere."""

    @pytest.mark.parametrize(
        "variables",
        [
            {"DATABASE_URL": POSTGRES, "REDIS_URL": REDIS},
            {"DATABASE_URL": f"mysql://user:{SECRET}@localhost/nova"},
            {"DATABASE_URL": f"{SECRET}:5432/nova"},
            {"DATABASE_URL": f"user:{SECRET}@localhost/nova"},
            {"DATABASE_URL": SECRET},
            {"DATABASE_URL": f"sqlite://{SECRET}@host/a.db"},
            {"DATABASE_URL": f"sqlite:///a.db?key={SECRET}"},
            {"REDIS_URL": SECRET},
            {"REDIS_URL": f"{SECRET}@localhost:6379"},
            {"REDIS_URL": f"http://:{SECRET}@localhost"},
            {"DATABASE_URL": POSTGRES, "REDIS_URL": REDIS, "ENV": "production", "BUDGET_STORE": "postgres"},
            {"REDIS_URL": REDIS, "CHECKPOINT_RETENTION_DAYS": "many"},
        ],
        ids=lambda variables: str(variables).replace(SECRET, "..."),
    )
    def test_no_error_and_no_representation_shows_it(
        self, variables: dict[str, str], environment: Callable[..., None]
    ) -> None:
        """Neither errors, with everything that they refer to, nor settings, choices and stores show a secret."""
        environment(**variables)
        seen: list[str] = []

        for kind in KINDS:
            try:
                store = FACTORIES[kind]()
                seen += [repr(store), str(store), repr(choose(kind, load_settings()))]
            except ConfigurationError as error:
                seen += shown(error)

        assert seen
        assert not [text for text in seen if SECRET in text]

    def test_settings_show_no_secret(self, environment: Callable[..., None]) -> None:
        """repr, str, dump and JSON of the settings hide every DSN and key."""
        names = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY")
        environment(**dict.fromkeys(names, SECRET), DATABASE_URL=POSTGRES, REDIS_URL=REDIS)
        settings = load_settings()

        texts = [repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()]

        assert not [text for text in texts if SECRET in text]
        assert settings.redis_url is not None
        assert settings.redis_url.get_secret_value() == REDIS


def shown(error: BaseException | None) -> list[str]:
    """Return every text that a log could show of an error, its cause and its context included."""
    if error is None:
        return []
    own = [str(error), repr(error), "".join(traceback.format_exception(error)), str(getattr(error, "errors", list)())]
    return own + shown(error.__cause__) + shown(error.__context__)
