"""tf_clip.client and the local server understand each other's limits."""

import contextlib

import numpy as np
import pytest

from helpers.serving.plain_model import PlainModel
from tf_clip.client import GrpcClient, RestClient, ServingError

pytestmark = pytest.mark.process


@pytest.fixture(params=[RestClient, GrpcClient])
def make_client(request, small_server):
    """Makes clients of a server that takes 4 rows and 2 requests at a time."""
    with contextlib.ExitStack() as stack:

        def make(**options):
            where = small_server.url if request.param is RestClient else small_server.target
            return stack.enter_context(contextlib.closing(request.param(where, **options)))

        yield make


def wanted(texts):
    model = PlainModel(shift=1.0)
    return model.encode_text(texts)["text_embeds"].numpy()


def test_it_is_ready_and_says_what_it_has(make_client):
    client = make_client()
    assert client.is_ready()
    metadata = client.metadata()
    assert (metadata["name"], str(metadata["version"])) == ("clip", "1")
    assert {"encode_image", "similarity"} <= metadata["signatures"].keys()
    assert not make_client(model="clop").is_ready()


def test_a_batch_that_is_too_large_is_sent_in_parts(make_client):
    texts = [f"text {index}" for index in range(50)]
    found = make_client(batch_size=32, retries=0).encode_texts(texts)
    np.testing.assert_allclose(found.embeds, wanted(texts), atol=1e-6)


def test_more_requests_than_the_server_takes_come_again(make_client):
    texts = [f"text {index}" for index in range(60)]
    client = make_client(batch_size=2, concurrency=8, retries=30, backoff=0.01)
    np.testing.assert_allclose(client.encode_texts(texts).embeds, wanted(texts), atol=1e-6)


def test_what_is_refused_is_told_in_the_servers_words(make_client):
    with pytest.raises(ServingError, match="the model must be clip, received 'clop'"):
        make_client(model="clop").encode_texts(["a"])
    with pytest.raises(ServingError, match="the version must be 1, received '7'"):
        make_client(version=7).encode_texts(["a"])
