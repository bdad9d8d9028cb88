"""Answers to messages: `msgctl reply`, `send --reply-to`. They become options of an ordinary send.

An answer carries the id of the message that it answers, and that of the first message of the thread.
"""

from msgctl.client import Client
from msgctl.grammar import Args
from msgctl.send import plain
from msgd import model
from msgd.errors import UsageError
from msgd.wire.varlink import Json


def put_headers(args: Args, client: Client, id: str) -> Json:
    """Have the send answer the message with this id, or whose id begins so; what is known of that message.

    Raises UnknownMessage, UsageError.
    """
    answer = client.call("Show", id=plain(id))
    message: Json = answer["message"]
    if not message["direction"]:
        raise UsageError("there is nothing to answer: that tells what was done or befell this node")
    thread = (message.get("headers") or {}).get(model.THREAD) or message["id"]
    given = args.lists.setdefault("header", [])
    for pair in given:
        if pair.partition("=")[0] in (model.REPLY_TO, model.THREAD):
            raise UsageError(f"-H {pair}: what an answer belongs to is said by the message that it answers")
    given[:0] = [f"{model.REPLY_TO}={message['id']}", f"{model.THREAD}={thread}"]
    return answer


def address(args: Args, client: Client) -> None:
    """Make a send to the peer of the message that it answers out of the words `ID TEXT`."""
    answer = put_headers(args, client, args.words[0])
    if answer.get("others"):
        group = answer["message"]["headers"].get("group", "GROUP")
        raise UsageError(
            f"that message went to several peers, as one to @{group}",
            f"`msgctl send PEER --reply-to {args.words[0]} TEXT`, where PEER may be @{group}",
        )
    args.words[0] = answer["message"]["peer"]
