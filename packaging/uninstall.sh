#!/bin/sh
# Removes what install.sh put in place; `make uninstall` calls this with the same places in the environment.
# Settings (/etc/msgd), the log (/var/lib/msgd) and the user stay: they are the operator's, not the package's.
set -eu
cd "$(dirname "$0")/.."

home=$DESTDIR$PREFIX
if [ -d "$home" ] && [ ! -e "$home/pyvenv.cfg" ]; then
    echo "$home is not an installation of msgd; nothing was removed" >&2
    exit 1
fi
if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ] && [ -e "$UNITDIR/msgd.service" ]; then
    # All three at once: one after the other, a connection on a socket would start the stopped service again.
    systemctl disable --now msgd-control.socket msgd-peer.socket msgd.service
fi
rm -rf "$home"
rm -f "$DESTDIR$BINDIR/msgd" "$DESTDIR$BINDIR/msgctl"
for unit in systemd/msgd*; do rm -f "$DESTDIR$UNITDIR/${unit##*/}"; done
for unit in systemd/user/msgd*; do rm -f "$DESTDIR$USERUNITDIR/${unit##*/}"; done
rm -f "$DESTDIR$SYSUSERSDIR/msgd.conf" "$DESTDIR$TMPFILESDIR/msgd.conf"
if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
