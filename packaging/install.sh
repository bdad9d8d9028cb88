#!/bin/sh
# Installs msgd; `make install` calls this with the places in the environment.
#
# PREFIX gets a venv of its own, made with the distribution's Python, so that nothing of the system's packages and
# nothing below a home directory takes part. With gathered wheels pip works without a network. Under DESTDIR (for
# packagers) scripts and byte code name the final path, and nothing of this machine is touched. Over an older
# installation it replaces that one; `systemctl restart msgd` then runs the new one.
set -eu
umask 022
cd "$(dirname "$0")/.."

home=$DESTDIR$PREFIX
[ -n "$PYTHON" ] || { echo "no Python 3.11 or newer with venv here (on Debian: apt-get install python3-venv)" >&2; exit 1; }
interpreter=$(readlink -f "$(command -v "$PYTHON")")

environment() {
    "$interpreter" -m venv "$home"
    pip() { "$home/bin/python" -m pip --quiet --disable-pip-version-check install --no-compile "$@"; }
    if [ -e "$WHEELS/.gathered" ]; then
        pip --no-index --find-links "$WHEELS" msgd
        pip --no-index --find-links "$WHEELS" --no-deps --force-reinstall msgd   # the same version, newer content
    else
        rm -rf build/lib    # of an earlier build: modules that have since been removed
        pip -c packaging/constraints.txt .
        pip --no-deps --force-reinstall .
    fi
    # The service needs neither; the next installation brings them back for as long as it takes.
    "$home/bin/python" -m pip --quiet --disable-pip-version-check uninstall -y setuptools pip
    if [ -n "$DESTDIR" ]; then
        find "$home/bin" "$home/pyvenv.cfg" -type f -exec sed -i "s|$home|$PREFIX|g" {} +
        "$interpreter" -m compileall -q -s "$DESTDIR" -p / "$home/lib"
    else
        "$interpreter" -m compileall -q "$home/lib"
    fi
}

units() {    # from directory $1 to directory $2, with the paths of this installation
    mkdir -p "$DESTDIR$2"
    for unit in "$1"/msgd*; do
        sed -e "s|/opt/msgd|$PREFIX|g" -e "s|/usr/bin/python3\.11|$interpreter|g" "$unit" |
            install -m 0644 /dev/stdin "$DESTDIR$2/${unit##*/}"
    done
}

commands() {
    mkdir -p "$DESTDIR$BINDIR"
    for name in msgd msgctl; do ln -sfn "$PREFIX/bin/$name" "$DESTDIR$BINDIR/$name"; done
}

drop_in() {    # for who wants hooks; it permits nothing before it is copied into /etc/systemd/system/msgd.service.d
    sed "s|/opt/msgd|$PREFIX|g" packaging/msgd-exec.conf | install -D -m 0644 /dev/stdin "$home/share/msgd-exec.conf"
}

accounts() {
    install -D -m 0644 packaging/msgd.sysusers.conf "$DESTDIR$SYSUSERSDIR/msgd.conf"
    install -D -m 0644 packaging/msgd.tmpfiles.conf "$DESTDIR$TMPFILESDIR/msgd.conf"
}

this_machine() {    # what a package's post-install step does
    systemd-sysusers "$SYSUSERSDIR/msgd.conf"
    systemd-tmpfiles --create "$TMPFILESDIR/msgd.conf"
    if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
    echo "msgd is installed in $PREFIX. Start it with: systemctl enable --now msgd"
}

environment
units systemd "$UNITDIR"
units systemd/user "$USERUNITDIR"
commands
drop_in
accounts
if [ -z "$DESTDIR" ]; then this_machine; fi
