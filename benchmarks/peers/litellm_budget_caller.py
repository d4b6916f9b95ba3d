"""LiteLLM's budgets as a participant, run by the interpreter of their own environment.

It reads one order as JSON from its standard input and answers with one line of JSON. The proxy's own functions reserve and
reconcile, with its counters in memory, as one worker of it has them; ``strict`` is its fail_closed_budget_enforcement.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from importlib.metadata import version

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

BODY = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Read the report and name the three causes that it gives for the outage."}],
    "max_tokens": 4096,
}
ROUTE = "/v1/chat/completions"


async def measure(order: dict) -> list[dict]:
    import litellm
    from litellm.caching.dual_cache import DualCache
    from litellm.proxy._types import UserAPIKeyAuth
    from litellm.proxy.spend_tracking import budget_reservation as budgets
    from litellm.proxy.utils import ProxyLogging

    cache = DualCache()
    logging = ProxyLogging(user_api_key_cache=cache)
    cost = budgets.estimate_request_max_cost(request_body=BODY, route=ROUTE, llm_router=None)
    results = []
    for number, case in enumerate(order["cases"]):
        key = UserAPIKeyAuth(token=f"key-{number}", max_budget=cost * case["calls_that_fit"], spend=0.0)

        async def call() -> bool:
            try:
                reserved = await budgets.reserve_budget_for_request(
                    request_body=dict(BODY),
                    route=ROUTE,
                    llm_router=None,
                    valid_token=key,
                    team_object=None,
                    user_object=None,
                    prisma_client=None,
                    user_api_key_cache=cache,
                    proxy_logging_obj=logging,
                    fail_closed_budget_enforcement=case["strict"],
                )
            except litellm.BudgetExceededError:
                return False
            await asyncio.sleep(order["latency_s"])  # the provider answers, and bills what was the worst case
            await budgets.reconcile_budget_reservation(reserved, cost)
            return True

        admitted = await asyncio.gather(*(call() for _ in range(case["calls"])))
        results.append({"admitted": sum(admitted)})
    return results


if __name__ == "__main__":
    order = json.loads(sys.stdin.readline())
    with os.fdopen(os.dup(1), "w") as answer:
        os.dup2(2, 1)
        results = asyncio.run(measure(order))
        print(json.dumps({"version": f"litellm {version('litellm')}", "results": results}), file=answer, flush=True)
