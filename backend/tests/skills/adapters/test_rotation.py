"""A provider's key that is rotated under load: whoever is first, Vault or the provider, no call fails."""

from __future__ import annotations

import pytest

from app.credentials import Credential, CredentialSource
from app.errors import LLMError
from app.secrets.rotating import RotatingCredential
from app.skills.adapters.claude_adapter import ClaudeAdapter
from app.skills.adapters.openai_adapter import OpenAIAdapter
from app.skills.llm_invoke_v2 import LLMAdapter, StreamEnd
from tests.support.planted import planted
from tests.support.wire import WireServer

OLD, NEW = Credential(planted("provider.old_key"), "1"), Credential(planted("provider.new_key"), "2")


def adapter_of(name: str, source: CredentialSource, server: WireServer) -> LLMAdapter:
    """Return the adapter of a provider that the server plays."""
    if name == "claude":
        return ClaudeAdapter(api_key=source, base_url=server.url)
    return OpenAIAdapter(api_key=source, base_url=server.openai_url)


async def text_of(adapter: LLMAdapter, how: str) -> str:
    """Make a call and return its answer."""
    if how == "invoke":
        return (await adapter.invoke("hello")).content
    async for event in adapter.stream("hello"):
        if isinstance(event, StreamEnd):
            return event.response.content
    raise AssertionError("a stream without an end")


@pytest.mark.parametrize("how", ["invoke", "stream"])
@pytest.mark.parametrize("name", ["claude", "openai"])
class TestRotation:
    """Each adapter, whole and streamed."""

    async def test_where_the_provider_is_first_the_newer_key_is_looked_for(self, name: str, how: str) -> None:
        """The old one is rejected, the look finds the new one, and the same call succeeds with it."""

        def look() -> None:
            source.replace(NEW)

        source = RotatingCredential(OLD, look=look)
        async with WireServer(key=NEW.reveal()) as server:
            adapter = adapter_of(name, source, server)
            answer = await text_of(adapter, how)
            await adapter.aclose()

        assert answer == "You said: hello"
        assert [call.status for call in server.calls] == [401, 200]

    async def test_where_vault_is_first_the_former_key_is_honoured(self, name: str, how: str) -> None:
        """The new one is rejected; the call, and those after it, go on with the old one."""
        source = RotatingCredential(OLD, look=lambda: None)
        source.replace(NEW)
        async with WireServer(key=OLD.reveal()) as server:
            adapter = adapter_of(name, source, server)
            answers = [await text_of(adapter, how) for _ in range(2)]
            await adapter.aclose()

        assert answers == ["You said: hello"] * 2
        assert [call.status for call in server.calls] == [401, 200, 200]

    async def test_a_key_without_another_is_tried_once(self, name: str, how: str) -> None:
        """The rejection is the call's error, and names no key."""
        source = RotatingCredential(OLD, look=lambda: None)
        async with WireServer(key=NEW.reveal()) as server:
            adapter = adapter_of(name, source, server)
            with pytest.raises(LLMError) as caught:
                await text_of(adapter, how)
            await adapter.aclose()

        assert caught.value.code == "ERR_LLM_AUTH_FAILED"
        assert OLD.reveal() not in str(caught.value)
        assert [call.status for call in server.calls] == [401]
