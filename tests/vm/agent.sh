#!/bin/bash
# In the guest: does what tests/vm/machine.py asks over a virtio port. A request is a line, and as many bytes as it says:
#
#     ping                     answered by: hello BOOT_ID
#     put SIZE PATH            the bytes become that file
#     run SIZE SECONDS         the bytes are a script for bash
#
# The last two are answered by a line "EXIT SIZE" and what was printed. Where the host is gone (a snapshot is taken up
# elsewhere) the port ends, and is opened again.
port=/dev/virtio-ports/nfmailguard.agent
export LC_ALL=C.UTF-8 HOME=/root TERM=dumb
while :; do
    exec 3<>"$port" || { sleep 1; continue; }
    echo "hello $(cat /proc/sys/kernel/random/boot_id)" >&3
    while read -r -u 3 what size rest; do
        case $what in
            ping) echo "hello $(cat /proc/sys/kernel/random/boot_id)" >&3; continue ;;
            put) head -c "$size" <&3 >"$rest"; code=$?; : >/run/agent.said ;;
            run)
                head -c "$size" <&3 >/run/agent.script
                timeout -k 5 "$rest" bash /run/agent.script </dev/null >/run/agent.said 2>&1 3>&-
                code=$? ;;
            *) continue ;;
        esac
        # What is still running goes on writing into a file that nobody reads.
        mv /run/agent.said /run/agent.reply
        size=$(stat -c %s /run/agent.reply)
        { echo "$code $size"; head -c "$size" /run/agent.reply; } >&3
    done
    exec 3>&-
    sleep 0.2
done
