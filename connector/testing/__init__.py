"""Public test doubles: an embedded Kafka broker, simulated vendors, a manual clock.

They serve the project's tests, the demo, and users who test their own pipelines. The simulators are written from the
vendors' documents and share no code with `connector.vendors`, so that a misreading in one cannot hide in the other.
Nothing here runs in production.
"""

from connector.testing.broker import EmbeddedBroker
from connector.testing.clock import ManualClock
from connector.testing.faults import Call, Fault, FaultPlan, parse_fault
from connector.testing.jiguang import JiguangApi
from connector.testing.jpush_report import JPushReportApi
from connector.testing.mytracker import MyTrackerApi
from connector.testing.quick_audience import QuickAudienceApi
from connector.testing.serve import SIMULATORS, account, simulate
from connector.testing.simulator import AcceptedEvent, Api, Reply, Served, Simulator, json_reply

__all__ = [
    "SIMULATORS",
    "AcceptedEvent",
    "Api",
    "Call",
    "EmbeddedBroker",
    "Fault",
    "FaultPlan",
    "JPushReportApi",
    "JiguangApi",
    "ManualClock",
    "MyTrackerApi",
    "QuickAudienceApi",
    "Reply",
    "Served",
    "Simulator",
    "account",
    "json_reply",
    "parse_fault",
    "simulate",
]
