"""Calls of Arrow Flight SQL by pyarrow, with their messages of protobuf written byte by byte. Shared by the sessions that need calls which
ADBC does not make, or the status of gRPC as it comes."""

import pyarrow as pa
import pyarrow.flight as flight

TYPES = "type.googleapis.com/arrow.flight.protocol.sql."
CANCELLED, NOT_CANCELLABLE = 1, 3


def varint(number):
    digits = b""
    while number > 0x7F:
        digits += bytes([number & 0x7F | 0x80])
        number >>= 7
    return digits + bytes([number])


def field(number, value):
    """A field of bytes."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def command(name, body=b""):
    """A message of Flight SQL within `Any`."""
    return field(1, (TYPES + name).encode()) + field(2, body)


def plan(client, sql, options=None):
    """Plans a query; returns the FlightInfo that fetches its rows."""
    descriptor = flight.FlightDescriptor.for_command(command("CommandStatementQuery", field(1, sql.encode())))
    return client.get_flight_info(descriptor, options)


def fetch(client, info, options=None):
    """Reads the rows of a planned query. By chunks: `read_all` takes a cancelled stream for Ctrl-C and interrupts the program."""
    reader = client.do_get(info.endpoints[0].ticket, options)
    return pa.Table.from_batches([chunk.data for chunk in reader], reader.schema)


def cancel(client, info, options=None):
    """Asks for a query to be cancelled; returns Flight SQL's CancelResult."""
    action = flight.Action("CancelQuery", command("ActionCancelQueryRequest", field(1, info.serialize())))
    answers = [answer.body.to_pybytes() for answer in client.do_action(action, options)]
    return answers[0][-1]
