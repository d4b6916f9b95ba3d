"""LangGraph's AsyncPostgresSaver as a participant: ``langgraph_recorder.py full|delta DSN``.

An agent's loop: one node that appends a message to the state until there are enough, with ``durability="sync"``, so
that a step is on record before the next begins. ``delta`` declares the list as a ``DeltaChannel``.
"""

import operator
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypedDict

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.support.recording import Recorder, Steps, serve_runs


@asynccontextmanager
async def recorder(kind: str, dsn: str) -> AsyncIterator[Recorder]:
    """A pool of sixteen connections, as Nova has; the saver's own settings otherwise."""
    from langgraph.channels.delta import DeltaChannel
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    from langgraph.graph import END, START, StateGraph
    from psycopg.rows import dict_row
    from psycopg_pool import AsyncConnectionPool

    def extend(state: list[str], updates: Any) -> list[str]:
        return [*state, *(item for update in updates for item in update)]

    class Full(TypedDict):
        name: str
        messages: Annotated[list, operator.add]

    class Delta(TypedDict):
        name: str
        messages: Annotated[list, DeltaChannel(extend)]

    work: dict[str, Steps] = {}

    async def step(state: Any) -> dict[str, Any]:
        return {"messages": [work[state["name"]].next(len(state["messages"]))]}

    def go_on(state: Any) -> str:
        return "step" if len(state["messages"]) < len(work[state["name"]]) else END

    graph = StateGraph(Full if kind == "full" else Delta)
    graph.add_node("step", step)
    graph.add_edge(START, "step")
    graph.add_conditional_edges("step", go_on, {"step": "step", END: END})
    settings = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(dsn, min_size=16, max_size=16, kwargs=settings) as pool:
        saver = AsyncPostgresSaver(pool)
        await saver.setup()
        app = graph.compile(checkpointer=saver)

        async def record(name: str, steps: Steps) -> None:
            work[name] = steps
            config = {"configurable": {"thread_id": name}, "recursion_limit": len(steps) + 10}
            await app.ainvoke({"name": name, "messages": []}, config, durability="sync")

        async def load(name: str) -> int:
            snapshot = await app.aget_state({"configurable": {"thread_id": name}})
            return len(snapshot.values["messages"])

        yield Recorder(record=record, load=load)


if __name__ == "__main__":
    serve_runs(recorder(sys.argv[1], sys.argv[2]), version=f"langgraph-checkpoint-postgres {version('langgraph-checkpoint-postgres')}")
