"""The ten tasks, written down before the first run. A change of one makes another task, which gets another name.

Dates are as-of dates: features are of events before it, outcomes of the days from it on.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Lake:
    """What `intentcast import` reads (set and files below the data folder) or `intentcast simulate` makes."""

    name: str
    files: tuple[str, ...] = ()
    simulate: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    name: str
    lake: Lake
    kind: str  # intent, table, demand or items
    date: str  # the training's date: nothing later is learnt from
    target: str = "purchase"
    horizon_days: int = 7
    step_days: int = 7  # between two past dates
    test_dates: int = 1  # the date and so many later ones, a horizon apart
    settings: tuple[str, ...] = field(default=())  # of intentcast, where a default doesn't fit the set or the task


TAOBAO = Lake("taobao", ("taobao-user-behavior/*.csv*",))
TMALL = Lake("tmall", ("tmall-brands/*.csv*",))
RETAIL = Lake("online-retail-ii", ("online-retail-ii/*.csv*",))
CDNOW = Lake("cdnow", ("cdnow/CDNOW_master*",))
JOURNEY = Lake("complete-journey", ("complete-journey/products.csv*", "complete-journey/transactions*"))
SHOPPERS = Lake("shoppers", ("uci-online-shoppers/*.csv*",))

# Columns of the shoppers' table whose numbers are codes: categories for every model.
CODES = ["OperatingSystems", "Browser", "Region", "TrafficType"]


def simulated(users: int) -> Lake:
    items = max(users // 20, 100)
    return Lake(
        f"simulated-{users}",
        simulate=("--users", str(users), "--items", str(items), "--days", "150", "--seed", "29"),
    )


# Demand has no part in these; training it takes half of the time.
INTENTS = ("demand.enabled=false",)

TASKS = [
    Task(
        "taobao-cart",
        TAOBAO,
        "intent",
        "2017-12-01",
        "cart",
        1,
        1,
        settings=("demand.enabled=false", "intents.horizon_days=1", "train.as_of_step_days=1"),
    ),
    Task("tmall-purchase", TMALL, "intent", "2014-07-02", test_dates=2, settings=INTENTS),
    Task("retail-purchase", RETAIL, "intent", "2010-11-25", test_dates=2, settings=INTENTS),
    Task(
        "cdnow-purchase",
        CDNOW,
        "intent",
        "1997-09-03",
        "purchase",
        28,
        28,
        settings=("demand.enabled=false", "intents.horizon_days=28", "train.as_of_step_days=28"),
    ),
    Task("simulated-500-purchase", simulated(500), "intent", "2026-05-01", test_dates=3, settings=INTENTS),
    Task("simulated-20000-purchase", simulated(20_000), "intent", "2026-05-01", test_dates=3, settings=INTENTS),
    Task("simulated-200000-purchase", simulated(200_000), "intent", "2026-05-01", settings=INTENTS),
    Task("shoppers-purchase", SHOPPERS, "table", "", "Revenue"),
    Task("retail-demand", RETAIL, "demand", "2010-10-28", "units", 28, 7, test_dates=3),
    Task("tmall-items", TMALL, "items", "2014-06-18", "purchase", 28, 7, settings=INTENTS),
]
