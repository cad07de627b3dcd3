"""The changes to what seeds seldom reach that `mutants` makes, one at a time; the simulation notices each."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutations import Mutant

UNUSUAL: Final = (
    Mutant(
        "end the run over a record that cannot be decoded",
        "connector/pipeline/intake.py",
        "        except Exception as error:  # noqa: BLE001 - no content of a record may end a run\n"
        "            # It is unknown",
        "        except KeyError as error:\n            # It is unknown",
    ),
    Mutant(
        "end the run over a record that cannot be prepared",
        "connector/pipeline/preparation.py",
        "            except Exception as error:  # noqa: BLE001 - no content of a record may end a run\n"
        '                self._refuse(leg, record, tracker, routed, internal_refusal(error, "prepared"))',
        "            except KeyError as error:\n"
        '                self._refuse(leg, record, tracker, routed, internal_refusal(error, "prepared"))',
    ),
    Mutant(
        "refuse a whole run for one record over which the decoder raises",
        "connector/pipeline/intake.py",
        "            return [outcome for record in records for outcome in self._decoded([record])]",
        '            return [internal_refusal(error, "decoded")] * len(records)',
    ),
    Mutant(
        "take any block of headers for that of a dead letter",
        "connector/dead_letters/headers.py",
        "    before = parse(record.headers) if dead_letter.replayed else None",
        "    before = parse(record.headers)",
    ),
    Mutant(
        "believe a map under any offset",
        "connector/pipeline/offset_map.py",
        "        if _checksum(base, content) != frame[3:7]:",
        "        if not any(_checksum(at, content) == frame[3:7] for at in (base, 10**6)):",
    ),
    Mutant(
        "forget the claims of a destination that is absent",
        "connector/pipeline/offsets.py",
        "for name, offsets in parts.items()} | absent)",
        "for name, offsets in parts.items()})",
    ),
    Mutant(
        "commit although the topic was recreated",
        "connector/kafka/topic_ids.py",
        "        return others\n",
        "        return set()\n",
    ),
    Mutant(
        "repeat a commit that can never pass",
        "connector/pipeline/runner.py",
        "for partition, fault in faults.items() if not isinstance(fault, FinalFault)]",
        "for partition, fault in faults.items()]",
    ),
    Mutant(
        "try the last commit once",
        "connector/pipeline/runner.py",
        "        while failed and not late:",
        "        while False:",
    ),
    Mutant(
        "repeat the last commit for two seconds",
        "connector/pipeline/runner.py",
        "        await self._commit_last(leaving, deadline)",
        "        await self._commit_last(leaving, min(deadline, now + 2.0))",
    ),
    Mutant(
        "never try the last commit after the deadline",
        "connector/pipeline/runner.py",
        "            late = self._clock.now() >= deadline\n",
        "            late = self._clock.now() >= deadline\n            if late:\n                break\n",
    ),
    Mutant(
        "give up by the clock on the wall",
        "connector/delivery/outcome.py",
        "batch.first_sent_at\n"
        "        over = limit is not None and since is not None and self._ports.clock.now() - since >= limit",
        "batch.first_attempt\n"
        "        over = limit is not None and since is not None and self._ports.clock.wall() - since >= limit",
    ),
    Mutant(
        "send although an operator holds the destination",
        "connector/delivery/states.py",
        "return tuple(hold for hold in sorted(self.active, key=_badness) if hold.scope in scopes)",
        "return tuple(hold for hold in self.active if hold.scope in scopes and hold.next_probe is not None)",
    ),
    Mutant(
        "never read rotated secrets",
        "connector/delivery/worker.py",
        "                destination.reload()\n",
        "                pass\n",
    ),
    Mutant(
        "wait only as long as the vendor asks",
        "connector/delivery/pacing.py",
        "return own if wish is None else max(own, min(wish, settings.max))",
        "return own if wish is None else min(wish, settings.max)",
        "tests/unit/delivery/test_backoff.py",
    ),
    Mutant(
        "send a lone refused record again before it is believed bad",
        "connector/delivery/outcome.py",
        "        elif judged or verdict.documented:",
        "        elif judged:",
    ),
    Mutant(
        "isolate one record at a time",
        "connector/delivery/isolation.py",
        "    middle = (len(batch.deliveries) + 1) // 2\n",
        "    middle = 1\n",
        "tests/unit/delivery/test_isolation.py::test_exactly_the_bad_are_left_alone",
    ),
    Mutant(
        "let parked records go on whatever room there is",
        "connector/pipeline/intake.py",
        "        while waiting and (not portion or budget.used + cost < budget.limit):",
        "        while waiting:",
        "tests/unit/pipeline/test_intake.py",
    ),
    Mutant(
        "call a member ready that has nothing",
        "connector/runtime/member.py",
        "        is_joined = self._has_partitions() or self._unassigned is None",
        "        is_joined = True",
        "tests/unit/runtime/test_readiness.py",
    ),
    Mutant(
        "call a member ready again only after a minute",
        "connector/runtime/member.py",
        "            return JOINING if lost_since < self._session_timeout + SESSION_MARGIN else None",
        "            return JOINING if lost_since < 60.0 else None",
        "tests/unit/runtime/test_readiness.py",
    ),
    Mutant(
        "count a storm's records by nothing",
        "connector/pipeline/storms.py",
        "        self._refused[reason] += 1\n",
        "",
        "tests/unit/pipeline/test_storms.py",
    ),
    Mutant(
        "probe a storm without pause",
        "connector/pipeline/storms.py",
        "        storm.next_probe = self._clock.now() + self._wait(storm.probes)",
        "        storm.next_probe = self._clock.now()",
        "tests/unit/pipeline/test_storms.py",
    ),
    Mutant(
        "set aside again what a release let go",
        "connector/pipeline/storms.py",
        "        return reason not in self._released.values()",
        "        return True",
        "tests/unit/delivery/test_worker_holds.py",
    ),
    Mutant(
        "send a throttled batch first for ever",
        "connector/delivery/outcome.py",
        "        elif others_pass:",
        "        elif False:",
        "tests/unit/delivery/test_blame.py",
    ),
    Mutant(
        "send full batches while a quota is used up",
        "connector/delivery/worker.py",
        "            stuck = self._destination.throttle.stuck",
        "            stuck = False",
        "tests/unit/delivery/test_blame.py",
    ),
    Mutant(
        "put a probe back whose refusal can be believed",
        "connector/delivery/outcome.py",
        "        if not judged and (lasts",
        "        if (lasts",
        "tests/unit/delivery/test_blame_evidence.py",
    ),
    Mutant(
        "wait for evidence for each record of a storm",
        "connector/delivery/outcome.py",
        "        return self._in_storm(batch, _cause_of(verdict), verdict.code)",
        "        return False",
        "tests/unit/delivery/test_blame_evidence.py",
    ),
    Mutant(
        "take a storm's probe for a wrong credential",
        "connector/delivery/outcome.py",
        '            if blamed or self._in_storm(batch, "refused", verdict.code):',
        "            if blamed:",
        "tests/unit/delivery/test_blame_evidence.py",
    ),
    Mutant(
        "take a firewall that refuses many records for a wrong credential",
        "connector/delivery/isolation.py",
        "            self._walled.add(endpoint)",
        "            pass",
        "tests/unit/delivery/test_blame_evidence.py",
    ),
)
