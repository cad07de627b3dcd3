"""A producer's errors: noted by the event loop alone, although librdkafka reports them in another thread."""

import asyncio
import threading

from confluent_kafka import KafkaError

from connector.config.loader import KafkaSettings
from connector.kafka.client import ALL_BROKERS_DOWN
from connector.kafka.producer import KafkaProducer


async def test_an_error_is_noted_by_the_loop_that_notes_its_end() -> None:
    """An error that begins while an acknowledgement ends the last one breaks neither.

    Kills: two threads that change the same errors. Then the one that serves acknowledgements can end, and no dead
    letter is ever acknowledged again.
    """
    producer = KafkaProducer(KafkaSettings(topics=["t"], group_id="g", client={"bootstrap.servers": "127.0.0.1:1"}))
    producer._loop = asyncio.get_running_loop()
    thread = threading.Thread(target=producer._on_error, args=(KafkaError(ALL_BROKERS_DOWN),))
    thread.start()
    thread.join()
    assert not producer._errors, "another thread changed them"
    await asyncio.sleep(0)
    assert producer._errors
