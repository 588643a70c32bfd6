"""How many rows a database passes over for a statement."""

from typing import Any

from sqlalchemy import Engine


def rows_read(engine: Engine, statement: str, parameters: Any) -> float:
    """Return about how many rows a statement reads, of tables and indexes.

    Of PostgreSQL those of its scans; of SQLite a tenth of the steps of its machine, of which a row
    takes about ten.
    """
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            return _steps_of(connection.connection.dbapi_connection, statement, parameters) / 10
        explain = f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}"
        return _scanned(connection.exec_driver_sql(explain, parameters).scalar()[0]["Plan"])


def _steps_of(connection: Any, statement: str, parameters: Any) -> int:
    steps: list[int] = []
    connection.set_progress_handler(lambda: steps.append(1) and 0, 100)
    connection.execute(statement, parameters).fetchall()
    connection.set_progress_handler(None, 0)
    return len(steps) * 100


def _scanned(plan: dict[str, Any]) -> float:
    own = 0
    if "Scan" in plan["Node Type"]:
        own = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
    return own * plan["Actual Loops"] + sum(map(_scanned, plan.get("Plans", ())))
