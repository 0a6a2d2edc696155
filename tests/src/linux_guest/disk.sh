# Reads the disks, overwrites each with /pattern from both processors and several processes at once, all disks at
# the same time, reads them back, and says by each one's serial what it saw.

say() { echo "guest: $*"; }
hash() { sha256sum | cut -d ' ' -f 1; }
disks=$(cat /disks)
waited=0
until [ "$(ls -d /sys/block/vd* 2>/dev/null | wc -l)" = "$(echo $disks | wc -w)" ] || [ $waited = 100 ]; do
    sleep 0.1
    waited=$((waited + 1))
done

# The block device with the serial $1.
named() {
    for block in /sys/block/vd*; do
        [ "$(cat $block/serial)" = "$1" ] && basename $block
    done
}

for serial in $disks; do
    name=$(named $serial)
    block=/sys/block/$name
    say "$serial sectors=$(cat $block/size)"
    say "$serial queues=$(ls $block/mq | wc -l)"
    say "$serial discard=$(cat $block/queue/discard_max_bytes)"
    say "$serial found=$(dd if=/dev/$name bs=64k iflag=direct 2>/dev/null | hash)"
done

copy() { dd if=/pattern of=/dev/$name "$@" 2>/dev/null || say "a write failed: $name $*"; }

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

# Overwrites the disk $name.
overwrite() {
    for part in 0 1 2 3; do
        on 1 write $part 4096 oflag=direct &
        on 2 write_askew $((part + 4)) &
        on 1 write $((part + 8)) 65536 oflag=direct &
        on 2 write $((part + 12)) 262144 conv=fsync &
    done
    wait
}

say writing
for serial in $disks; do
    name=$(named $serial)
    overwrite &
done
wait
sync
say written

echo 3 > /proc/sys/vm/drop_caches
for serial in $disks; do
    name=$(named $serial)
    cmp /dev/$name /pattern && say "$serial differences=none"
    say "$serial left=$(dd if=/dev/$name bs=1M iflag=direct 2>/dev/null | hash)"
done
