#!/bin/sh
# Tries the newest dist/nfmailguard_*.deb in a bare Debian of its release, as root:
#
#     tests/packaging/deb.sh          DEB_ROOT: a folder that debootstrap has filled; without, one is made
#
# Installed with what it depends on and no more, its commands work, the service is off, and after a purge of it and of
# what came with it every file is as before. Exits 1 at the first fault.
set -eu
cd "$(dirname "$0")/../.."
say() { echo "deb: $*"; }
die() { say "$@" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "needs root: chroot"
# shellcheck disable=SC2012  # our own names
package=$(ls -t dist/nfmailguard_*.deb 2>/dev/null | head -n 1)
[ -n "$package" ] || die "no package: make deb"
root=${DEB_ROOT:-$PWD/build/deb-root}
if ! [ -x "$root/usr/bin/apt-get" ]; then
    command -v debootstrap >/dev/null || die "needs: apt-get install debootstrap"
    say "making a bare Debian in $root"
    debootstrap --variant=minbase "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$root" >/dev/null
fi
scratch=$(mktemp -d)
inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root DEBIAN_FRONTEND=noninteractive "$@"; }
leave() {
    ! mountpoint -q "$root/proc" || umount "$root/proc"
    rm -rf "$scratch" "$root/root/nfmailguard-test"
}
trap leave EXIT
mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"

# Every file with its sort, mode and checksum, but for what apt and dpkg write about themselves, and caches.
state() {
    (cd "$root" && find . -xdev \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./tmp -o -path ./root/nfmailguard-test \
        -o -path ./var/lib/dpkg -o -path ./var/lib/apt -o -path ./var/cache -o -path ./var/log/apt \) -prune -o \
        ! -path ./var/log/dpkg.log ! -path ./var/log/alternatives.log ! -path ./etc/ld.so.cache \
        \( -printf '%y %m %u %g %p %l\n' -type f -exec cksum {} + \) | sort)
}
expect() {
    what=$1
    shift
    "$@" >"$scratch/said" 2>&1 || { cat "$scratch/said"; die "$what"; }
}
said() { grep -qF -- "$1" "$scratch/said" || { cat "$scratch/said"; die "does not say: $1"; }; }

expect "no package lists" inside apt-get update -q
state >"$scratch/before"
inside dpkg-query -W -f '${Package}\n' | sort >"$scratch/packages"
mkdir -p "$root/root/nfmailguard-test"
cp "$package" "$root/root/nfmailguard-test/new.deb"
say "installing $(basename "$package")"
expect "apt cannot install it" inside apt-get install -y -q --no-install-recommends /root/nfmailguard-test/new.deb

expect "--version" inside nfmailguard --version
said "nfmailguard "
expect "profile list" inside nfmailguard profile list
said pix63
expect "check" inside nfmailguard check
said "monitor pix63, queue 0, ports 25, hook forward"
expect "check in a folder with modules of its own" inside sh -c \
    'mkdir -p /root/nfmailguard-test/here && cd /root/nfmailguard-test/here && echo "raise SystemExit(9)" >click.py && nfmailguard check'
expect "no drivers" inside env PYTHONPATH=/usr/lib/nfmailguard python3 -c \
    'import netfilterqueue, nfmailguard.queues.kernel, nfmailguard.cext.drivers.nfqueue_loop'
PYTHONPATH=. python3 -c 'import sys
from tests.support.captures import RAW, framed, mail, pcap
sys.stdout.buffer.write(pcap(framed(mail()), RAW))' >"$root/root/nfmailguard-test/in.pcap" || die "no capture"
expect "replay" inside nfmailguard replay /root/nfmailguard-test/in.pcap /root/nfmailguard-test/out.pcap \
    --mode enforce --profile pix63 --json
said '"command.denied"'
said '"banner.masked"'
grep -q XXXX "$root/root/nfmailguard-test/out.pcap" || die "replay has masked nothing"
# On a real queue, in a network namespace of its own, with the configuration as it comes; systemd makes the folders.
mkdir -p "$root/var/log/nfmailguard" "$root/run/nfmailguard"
alone() { unshare -n chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"; }
expect "run" alone bash -c 'nfmailguard run -c /etc/nfmailguard/nfmailguard.toml & gateway=$!
for try in $(seq 50); do sleep 0.2; nfmailguard status >/dev/null 2>&1 && break; done
nfmailguard status; nfmailguard reload; kill -TERM $gateway; wait $gateway && echo "exit 0, tries: $try"'
said "healthy: monitor pix63"
said "exit 0"
expect "completion" inside bash -c '. /usr/share/bash-completion/completions/nfmailguard
COMP_WORDS=(nfmailguard prof) COMP_CWORD=1; _nfmailguard_completion nfmailguard; echo "${COMPREPLY[@]}"'
said profile
[ -s "$root/etc/logrotate.d/nfmailguard" ] || die "no logrotate"
expect "exporter" inside nfmailguard exporter --once
said "nfmailguard_up 0.0"
for file in lib/systemd/system/nfmailguard-exporter.service usr/share/doc/nfmailguard/examples/prometheus/nfmailguard.rules.yml \
    usr/share/doc/nfmailguard/examples/grafana/nfmailguard.json; do
    [ -s "$root/$file" ] || die "not in the package: $file"
done
inside dpkg-query -W -f '${Conffiles}\n' nfmailguard >"$scratch/said"
said /etc/nfmailguard/nfmailguard.toml
[ -z "$(find "$root/etc/systemd" -name 'nfmailguard*')" ] || die "a service is enabled"

say "again, as an upgrade: a changed configuration stays"
echo '# changed' >>"$root/etc/nfmailguard/nfmailguard.toml"
expect "dpkg cannot install it again" inside dpkg --force-confold -i /root/nfmailguard-test/new.deb
grep -q '^# changed' "$root/etc/nfmailguard/nfmailguard.toml" || die "the configuration was overwritten"

# What a gateway leaves.
mkdir -p "$root/var/log/nfmailguard" "$root/run/nfmailguard"
touch "$root/var/log/nfmailguard/eve.json" "$root/run/nfmailguard/control.sock"
say "purging"
expect "purge" inside apt-get purge -y -q nfmailguard
left=$(find "$root/etc" "$root/usr" "$root/lib" "$root/var" "$root/run" -xdev -name '*nfmailguard*' ! -path '*/var/cache/apt/*')
[ -z "$left" ] || die "left behind: $left"
# What came with it goes too: then nothing at all may differ.
inside dpkg-query -W -f '${Package}\n' | sort | comm -13 "$scratch/packages" - >"$scratch/added"
# shellcheck disable=SC2046  # one word a package
expect "purge of what came along" inside apt-get purge -y -q $(cat "$scratch/added")
state >"$scratch/after"
diff "$scratch/before" "$scratch/after" || die "files differ from before"
say "installed it works, and purged it has left nothing"
