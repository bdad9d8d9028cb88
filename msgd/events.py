"""Every event that msgd may write: its fixed MESSAGE_ID, its level, its sentence.

An event's name is `noun.verb_past`. The sentence is what `journalctl` shows; `{field}` is filled from the
event's fields, so the line reads the same as what `journalctl EVENT=link.closed -o verbose` finds. JSON
lines and the terminal show name and fields only.

MESSAGE_ID is what a catalogue or an alarm keys on. It is never changed, not even with the name: an id
stands for a kind of event for good. A new event gets `uuid.uuid5(NAMESPACE, name).hex`.

Levels: error = we stop or lose work; warning = went on all the same, and says what was ignored or lost;
info = a state changed; debug = for us, and everything that happens per message.
"""

from typing import NamedTuple
from uuid import UUID

NAMESPACE = UUID("2f0c5b8e-6d1a-4c39-9b57-7a40d1e8c2f6")

DEBUG = "debug"
INFO = "info"
WARNING = "warning"
ERROR = "error"
LEVELS = (DEBUG, INFO, WARNING, ERROR)


class Event(NamedTuple):
    """One kind of event."""

    message_id: str  # 32 hexadecimal digits
    level: str  # one of LEVELS
    text: str  # for str.format_map; a field that is absent shows as '?'


EVENTS = {
    "daemon.started": Event("dc181007a95b57a5835e68d106907c9a", INFO, "msgd {version} is ready as {name}"),
    "daemon.stopping": Event("69b81d2af3c45b12b1d641248535a61a", INFO, "msgd is stopping: {reason}"),
    "daemon.stopped": Event(
        "cbeda82478da537591c4118b7d9755f2", INFO, "msgd has stopped with exit code {code}"
    ),
    "daemon.failed": Event("e99ba18e32df5e529e0961b07cbcf11c", ERROR, "msgd ends: {reason}"),
    "daemon.reloaded": Event("0aea0c22669d543cac8fbf54f1a2383c", INFO, "configuration applied"),
    "reload.refused": Event(
        "e2046f2dd218520d8317c6b1081355ed",
        ERROR,
        "configuration not applied, the old one stays in force: {reason}",
    ),
    "setting.ignored": Event(
        "90d63305d7ae5879826936a26aed94ec",
        WARNING,
        "{key} is not changed by a reload: restart msgd to apply it",
    ),
    "pidfile.replaced": Event(
        "9a3641bac63758be8fea9cae88a4673e", WARNING, "{path} named process {pid}, which is gone: replaced"
    ),
    "socket.ignored": Event(
        "746ef1a69b585f57a5bbb0ce8515c06b",
        WARNING,
        "file descriptor {name} passed by systemd is ignored: {reason}",
    ),
    "listener.opened": Event("04b8734e600752fcb958464a9908dded", INFO, "listening on {address}"),
    "watchdog.withheld": Event("4e3416b3de255bd9a7305b58249da399", ERROR, "watchdog not fed: {reason}"),
    "events.dropped": Event(
        "f46cbcf97f8e5a738f89bf357c75e064", WARNING, "{count} events were dropped, because nobody read them"
    ),
    "child.started": Event("7a8ddaaf604957a8b4f1ffdf0032c678", INFO, "{title} started as process {pid}"),
    "child.ended": Event(
        "578b839b1abd5b89a887ee5fdef57fce", INFO, "{title} (process {pid}) ended after {seconds} s: {reason}"
    ),
    "child.failed": Event("60f9987d97895bcaa9b527330e5ef209", ERROR, "{title} failed: {reason}"),
    "child.unknown": Event(
        "6ab1ca57f2cf5391bfe1e69cf8b5ba3e", DEBUG, "process {pid}, which is not ours, ended: {reason}"
    ),
    "child.refused": Event("d3a1b01ba6f355298d3386872d454e7b", ERROR, "no new process for {title}: {reason}"),
    "log.created": Event("09a42311856453b6a1225fed14beee27", INFO, "new log in {directory}"),
    "log.opened": Event(
        "06eff6facd3353a3a40149f70d26f4ea", INFO, "log opened: {records} records checked in {seconds} s"
    ),
    "log.repaired": Event(
        "e0c45749c73a5e6dae3ee5e9e9246b0f",
        WARNING,
        "torn tail of {cut_bytes} bytes cut off and kept as {kept_as}",
    ),
    "log.rolled": Event("f8f7cf094c1e585aa8bec534440cb1b7", DEBUG, "new segment {segment}"),
    "log.vacuumed": Event(
        "f348809d28595ced8375e34abf997002",
        INFO,
        "{segments} segments with {messages} messages are no longer kept: {reason}",
    ),
    "vacuum.failed": Event(
        "002b53c6727f57bebed66b54ef2a2aad",
        WARNING,
        "{segments} segments of the log could not be removed: {reason}",
    ),
    "log.full": Event(
        "00201674ef155b5698f0b3843f2e4ef8", ERROR, "the log cannot grow, messages are refused: {reason}"
    ),
    "log.recovered": Event(
        "27cb282c2abb5fd4b24b87460978ad7a", INFO, "there is space again, messages are taken"
    ),
    "log.damage_found": Event(
        "59b7536c1455514dafa0fd8caa99ae2b", ERROR, "log damaged in {segment} at {offset}: {reason}"
    ),
    "log.failed": Event(
        "caae6d1949a150b68ddb184c13e78283", ERROR, "the log can no longer be trusted: {reason}"
    ),
    "log.refused": Event("5271cedde1ad52b3b4b4ae5a8946383e", ERROR, "the log cannot be used: {reason}"),
    "sync.stalled": Event(
        "6589cca91fc25aa1bc73eaf008d8bda8", WARNING, "the disk has not answered for {seconds} s"
    ),
    "sync.resumed": Event("8df1d937cb9b53f79c41d90328d44f3a", INFO, "the disk answers again"),
    "reader.dropped": Event(
        "09f6e60f2bda574db8d690b6d323f339", WARNING, "{title} was cut off: it does not read"
    ),
    "index.opened": Event("7a5ad5c239bc5845b6959f0be6dc7c2d", DEBUG, "{file} opened at {offset}"),
    "index.rebuilt": Event("7a210c69afce55009081f2256d13b65b", INFO, "{file} built anew: {reason}"),
    "index.write_failed": Event(
        "cfed71c8017c5636ba5c8815d676e910", WARNING, "{file} not written, queries read the log: {reason}"
    ),
    "connection.refused": Event(
        "cd65af7f707850cebf0d376c81b81e94", WARNING, "connection from {address} refused: {reason}"
    ),
    "source.penalised": Event(
        "edbe4933500759868123569fdbd239b9",
        WARNING,
        "connections from {source} are closed at once for {seconds} s: it {reason}",
    ),
    "exchange.closed": Event(
        "2f3ded39afc25f59b4789dae118a6289",
        DEBUG,
        "the exchange of words with {peer} at {address} has ended: {reason}",
    ),
    "link.dialled": Event("b6dc6c65d4445884999cec7e0042a42d", DEBUG, "dialling {peer} at {address}"),
    "link.opened": Event("cd0ca29232c552b8b59a1110706cb64d", INFO, "link with {peer} at {address} opened"),
    "link.closed": Event("dc5d1ae339c25206a3be866f3a6e2057", INFO, "link with {peer} closed: {reason}"),
    "link.refused": Event("fd851376729d588498301b335fb35e7c", WARNING, "link with {peer} refused: {reason}"),
    "link.failed": Event("e137be0af50659c3816e414da829ec0d", INFO, "no link with {peer}: {reason}"),
    "peer.added": Event(
        "3e8a0dae109d5b89a092690c2bd5ce52", INFO, "peer {peer} added with identity {identity}"
    ),
    "peer.held": Event("1ceee16f6f065280a7bf100c8541061f", INFO, "what waits for {peer} is held: {reason}"),
    "peer.merged": Event(
        "cecfbeed9fef57bfb83850417163d713",
        INFO,
        "who answers at {address} is {peer}: {waiting} messages wait for it now",
    ),
    "parcel.made": Event(
        "5be72e64ad1a5fad806377b088a7faab", INFO, "parcel with {count} messages made for {peer} by {user}"
    ),
    "parcel.taken": Event(
        "60678fd1f2c15341b83dc230da5b2733", INFO, "parcel of {peer} read by {user}: {reason}"
    ),
    "peer.blocked": Event(
        "ed686df3c2e752259faa3ed60c914dff", INFO, "{peer} blocked by {user}, {cancelled} messages cancelled"
    ),
    "peer.unblocked": Event(
        "6cb5e38c546453a0a12c4c2326c431df", INFO, "{peer} is not blocked any more, by {user}"
    ),
    "key.rotated": Event(
        "6b39ac50a0c35342a6f412d8be7c8014", INFO, "{peer} has a new key, signed by its old one: {identity}"
    ),
    "peer.recovered": Event(
        "70e3b4ed45c55687b290ea4220b0e968", INFO, "recovered from {peer}, asked by {user}: {reason}"
    ),
    "service.opened": Event(
        "f9bc82ff3f90528cbe91938402fc0efa", INFO, "{peer} reads what both logs hold of each other"
    ),
    "service.closed": Event("53ff0d09697e573a84ae49cde7a67123", INFO, "{peer} has done reading: {reason}"),
    "log.verified": Event(
        "16bca2a5044e5207aecc8acf0d119446", INFO, "the log was verified for {user}: {reason}"
    ),
    "request.failed": Event(
        "9e2958a7e50f567798a7a2e210c155ec",
        ERROR,
        "a request of {title} failed, nothing of it was kept: {reason}",
    ),
    "peer.removed": Event("3f990180a7d657be9c83d361fd52b065", INFO, "peer {peer} removed"),
    "peer.renamed": Event("bf2f11ff92ab52149df78f3e530dd76d", INFO, "peer {old} is now called {peer}"),
    "peer.unknown": Event(
        "8a67085d1dad5007af44f25d83ec991e", WARNING, "{address} is not paired with this node"
    ),
    "pair.requested": Event(
        "e92663c8f11855b48db9c36ff690234b",
        INFO,
        "{node} at {address} and this node have words to compare: {words}",
    ),
    "pair.accepted": Event(
        "c24b65ec826e5ca9b1f838a1418861dc",
        INFO,
        "{node} at {address} is a peer now: {peer}, accepted by {user} ({how})",
    ),
    "pair.rejected": Event(
        "9f8ad248b3565e209f3faf0161ae1269", INFO, "the request of {node} at {address} was rejected by {user}"
    ),
    "pair.accepted_by_peer": Event(
        "5cb46a44206153bcb9f634c092f4a819", INFO, "the person at {node}, {address}, has accepted this node"
    ),
    "pair.rejected_by_peer": Event(
        "d0845fad9cea5050921dce82703f644e", WARNING, "the person at {node}, {address}, has rejected this node"
    ),
    "pair.expired": Event(
        "08a8657f30145434aa8461fa7961d39c",
        INFO,
        "the request of {node} at {address} expired: no person came in time",
    ),
    "pair.limited": Event(
        "293ac359686759a0b5f00853552bc23a",
        WARNING,
        "too many exchanges of words: one of {node} from {source} was refused for {seconds} s",
    ),
    "pair.broken": Event(
        "fa7f8b369ae9582bb10319f66603f18f",
        ERROR,
        "{peer} at {address} did not keep to its commitment: somebody may stand in between",
    ),
    "invitation.made": Event(
        "146007d54a645dfd89e0f0dce2094a1d", INFO, "invitation {invitation} made by {user}"
    ),
    "invitation.used": Event(
        "37b963d063695042aabe202ed5ff4ab1", INFO, "invitation {invitation} brought {peer}: {identity}"
    ),
    "invitation.refused": Event(
        "7df7c140834a51ca978170e8fec5878b",
        WARNING,
        "invitation {invitation} from {address} refused: {reason}",
    ),
    "invitation.ended": Event(
        "bc6aec675b2c5e4cb07edeaab7761450", WARNING, "invitation {invitation} has ended: {reason}"
    ),
    "join.begun": Event(
        "51364cafd5b85ee7bbc4dc1bb73cdf78", INFO, "{user} accepted the invitation of {peer}: {identity}"
    ),
    "join.done": Event(
        "0b0b0d44e61351fe8153846b6938c44f", INFO, "{peer} has confirmed its invitation: {identity}"
    ),
    "join.refused": Event(
        "330db408c0f45c72acd61e4af7004116", WARNING, "{peer} did not take its invitation: {reason}"
    ),
    "key.conflict": Event(
        "9c9ee8f355d9542cac9438deff2e5f71",
        WARNING,
        "a replaced key of {peer}, {former}, signed another successor, {successor}: not followed",
    ),
    "key.rotated_here": Event(
        "53d78bd594125cf09a627a4a3515394d",
        INFO,
        "{user} gave this node a new key: {identity}, formerly {former}",
    ),
    "key.retired_seen": Event(
        "aaeddec7009d5a0bafcb0bfb9ca711eb",
        WARNING,
        "{address} shows a replaced key of {peer}, {former}: a restored backup or a stolen key",
    ),
    "key.retired_here": Event(
        "7a5d86c0a1315593ae588ecff202be5e",
        WARNING,
        "{peer} knows the key of this node as replaced: a restored backup or a stolen key",
    ),
    "peer.returned": Event("f5e22368d49759ffb61524b44afd0981", INFO, "the key of {peer} answers again"),
    "peer.rekeyed": Event(
        "048c74f46a3a5571bc4741e7eed62311",
        WARNING,
        "the key of {peer} was replaced by {user}: {identity}, formerly {former}",
    ),
    "peer.cloned": Event(
        "ff099258e0995c6fa6fdec1d4521cb1b",
        WARNING,
        "two live nodes use the key of {peer}; one is at {address}",
    ),
    "node.cloned": Event(
        "5908f033ee155d85abd2c4fab13e6011",
        WARNING,
        "{peer} has a link with another live node that uses this node's key",
    ),
    "peer.forgotten": Event("9b4e99be9d6550ebac668ee27b5e3623", WARNING, "{peer} no longer knows this node"),
    "verify.differed": Event(
        "495da36b5b4b5db1a8001f771056eff5", ERROR, "the logs of {peer} and this node differ: {reason}"
    ),
    "peer.changed": Event(
        "88bc669b468f5d93a90917239eb4a743",
        ERROR,
        "{peer} at {address} shows another key than the one pinned, {found}: nothing is sent to it",
    ),
    "epoch.opened": Event(
        "b943da671e3d5aa688041c8b9a808fc0",
        WARNING,
        "the logs of {peer} and this node differed ({direction}): new epoch from seq {base}",
    ),
    "message.queued": Event("b11c9c7fceff5d3dbb092341b9c46b26", DEBUG, "message {id} queued for {peer}"),
    "message.received": Event(
        "c8da0722e6dc5abd8ac35763edee7502", DEBUG, "messages {first_seq} to {last_seq} received from {peer}"
    ),
    "message.handled": Event(
        "9a33a2ce72ba57398f331879c64edd6a", DEBUG, "message {id} was handled by {consumer}"
    ),
    "message.set_aside": Event(
        "725070f4935c5f68939b071dc84de101",
        WARNING,
        "{consumer} set message {id} aside after {count} attempts: {reason}",
    ),
    "consumer.begun": Event("b3941a7ad2085b4689163cd7b2219abb", INFO, "{user} began consumer {consumer}"),
    "consumer.removed": Event("154550576e655a2999fd4220ac795eb9", INFO, "{user} removed consumer {consumer}"),
    "consumer.released": Event(
        "9359dd29838b5f78b1c14ab9cd14c1f2",
        INFO,
        "{count} messages go back to {consumer}: the program that had them has ended",
    ),
    "consumer.passed_over": Event(
        "2d4a2e635adb59008a5fa0244ff9d1a9",
        WARNING,
        "{consumer} passed over what it had not handled: {reason}",
    ),
    "message.cancelled": Event(
        "a6d3498a54b751f6a64438fa3f45a89f", INFO, "message {id} for {peer} cancelled: {reason}"
    ),
    "messages.expired": Event(
        "29da76970e6c5d7e82bf257d89ccdc89", INFO, "{count} messages for {peer} expired"
    ),
    "receipt.received": Event("e1a75fa7b2b55545b6a226ca765ae1dd", DEBUG, "receipt up to {seq} from {peer}"),
    "clock.stepped": Event(
        "0b2224b53d5d5f86a5ede01d499e1003", WARNING, "the wall clock jumped by {step_s} s"
    ),
    "hook.begun": Event(
        "b48b61946b24582b94e720c1c1f5ce6c", INFO, "hook {hook} runs {command} for what comes"
    ),
    "hook.said": Event("f7c69f55b0635114907528627966d1a5", INFO, "hook {hook} for message {id}: {text}"),
    "hook.done": Event(
        "4aafc3c8d9d65bcd9f566814e1c99dc2",
        DEBUG,
        "hook {hook} has handled message {id} of {peer} in {seconds} s",
    ),
    "hook.failed": Event(
        "e606b6ce93a5543789808fa3856660c6",
        WARNING,
        "hook {hook} failed for message {id} of {peer}, attempt {attempt}: {reason}",
    ),
    "hook.interrupted": Event(
        "817b6fdfb2b15895ae0d9bd5c98a1010",
        INFO,
        "hook {hook} was interrupted at message {id} of {peer}: {reason}",
    ),
    "hook.refused": Event("8170585bbf28593fa0ee6d3e32f73928", ERROR, "hook {hook} does not run: {reason}"),
    "control.opened": Event("068c8a8af1885c8ba61d5a73c47ba537", DEBUG, "control client of uid {uid}"),
    "control.closed": Event("1d174d29e9d354e987e113d6217b4862", DEBUG, "control client of uid {uid} left"),
    "control.refused": Event(
        "841af71ed80158c99c3080b29f6be6a6", WARNING, "control client of uid {uid} refused: {reason}"
    ),
    "cast.begun": Event(
        "cfeac1ec196f54cd8c6481d2a0c097f6", INFO, "cast {id}: {files} files for {members} members of @{group}"
    ),
    "cast.stored": Event(
        "5aa76db3b1005bf5a6d9c27b8aa9fa82", INFO, "cast {id}: {peer} has all {files} files, {size} bytes"
    ),
    "cast.delayed": Event(
        "ee1bb9a2660350c3b9db95567ee5705f", WARNING, "cast {id}: {peer} does not get it now: {reason}"
    ),
    "cast.ended": Event(
        "d3046db7455c5f508ba07b115250b149",
        INFO,
        "cast {id}: every member of @{group} has it, or gets no more",
    ),
    "cast.cancelled": Event("8e6febbb97cd5673ae55abc154df4213", INFO, "cast {id} was cancelled by {user}"),
    "cast.failed": Event("62b5b81e7a9d55cabcf8d98b7b4feef1", ERROR, "casts cannot go on: {reason}"),
    "files.opened": Event("679eef12a3ee523a8be23551c9dc63be", DEBUG, "{peer} has opened the store of files"),
    "files.closed": Event(
        "f767b42dabf859bbb66f559363d074be",
        INFO,
        "{peer} has done with the store: {received} files came, {sent} went: {reason}",
    ),
    "files.uncatalogued": Event(
        "17eb728ee74151e88d89f7ff6b3cc523",
        WARNING,
        "the catalogue of files cannot be used, digests are missing in lists: {reason}",
    ),
    "file.received": Event(
        "fbb0ca9217a15cd39d25889c41ac90f6", INFO, "file {file} came from {peer}, {size} bytes"
    ),
    "file.sent": Event("21b3f5d4e5565087a6f0d8912855b184", INFO, "file {file} went to {peer}, {size} bytes"),
    "file.refused": Event(
        "c553e704f8cf5f30853473e7b21c6e8e",
        INFO,
        "file {file} was not taken from {peer} or given to it: {reason}",
    ),
    "file.copied": Event("d6f1577d6576572496391b1689b26c54", INFO, "{peer} made a copy of file {file}: {to}"),
    "file.removed": Event("e078d3f1314850caa9c9509ce3ef79ec", INFO, "{peer} removed {count} files: {file}"),
}
