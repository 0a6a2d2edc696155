# Reads /dev/vda, overwrites it with /pattern from both processors and several processes at once, reads
# it back, and says what it saw.

say() { echo "guest: $*"; }
hash() { sha256sum | cut -d ' ' -f 1; }
waited=0
until [ -b /dev/vda ] || [ $waited = 100 ]; do sleep 0.1; waited=$((waited + 1)); done

say "sectors=$(cat /sys/block/vda/size)"
say "serial=$(cat /sys/block/vda/serial)"
say "queues=$(ls /sys/block/vda/mq | wc -l)"
say "discard=$(cat /sys/block/vda/queue/discard_max_bytes)"
say "found=$(dd if=/dev/vda bs=64k iflag=direct 2>/dev/null | hash)"

copy() { dd if=/pattern of=/dev/vda "$@" 2>/dev/null || say "a write failed: $*"; }

# Writes MiB number $1 of the disk in pieces of $2 bytes.
write() {
    first=$(($1 * 1048576 / $2)) size=$2 count=$((1048576 / $2))
    shift 2
    copy bs=$size skip=$first seek=$first count=$count "$@"
}

# Writes MiB number $1 in pages that begin three sectors late, and then what is left at either end.
write_askew() {
    first=$(($1 * 2048)) start=$(($1 * 1048576 + 1536))
    copy bs=4096 iflag=skip_bytes oflag=seek_bytes,direct skip=$start seek=$start count=255
    copy bs=512 skip=$first seek=$first count=3 conv=fsync
    copy bs=512 skip=$((first + 2043)) seek=$((first + 2043)) count=5 conv=fsync
}

# Does the rest on the processors of mask $1.
on() {
    taskset -p $1 $(exec sh -c 'echo $PPID') > /dev/null
    shift
    "$@"
}

say writing
for round in 1 2 3; do
    for part in 0 1 2 3; do
        on 1 write $part 4096 oflag=direct &
        on 2 write_askew $((part + 4)) &
        on 1 write $((part + 8)) 65536 oflag=direct &
        on 2 write $((part + 12)) 262144 conv=fsync &
    done
    wait
done
sync
say written

echo 3 > /proc/sys/vm/drop_caches
cmp /dev/vda /pattern && say differences=none
say "left=$(dd if=/dev/vda bs=1M iflag=direct 2>/dev/null | hash)"
