# Serves a disk with /bin/vduse-blk and works on it as /dev/vda, once with each ring format. The daemon is killed
# under load and started again. Says what it saw.

say() { echo "guest: $*"; }
hash() { sha256sum | cut -d ' ' -f 1; }
# until_true COMMAND...: for ten seconds at most.
until_true() {
    waited=0
    until "$@" || [ $waited = 100 ]; do sleep 0.1; waited=$((waited + 1)); done
    [ $waited -lt 100 ] || say "not true: $*"
}
is_gone() { ! [ -e "$1" ]; }

mkdir -p /run /mnt
mount -t tmpfs tmpfs /tmp
say "pattern=$(hash < /pattern)"

# serve OPTION...
serve() {
    rm -f /tmp/daemon
    vduse-blk "$@" --queues 2 disk0 /tmp/disk 2> /tmp/daemon &
    daemon=$!
    # It has said something as soon as it serves, or has failed.
    until_true [ -s /tmp/daemon ]
}
die() {
    kill -9 $daemon
    wait $daemon 2> /dev/null
}

# Writes the pattern to a file until the deaths are over, in pieces of $2 bytes, past the page cache if $3 says so.
load() {
    until [ -e /tmp/over ]; do
        dd if=/pattern of=/mnt/$1 bs=$2 conv=fsync $3 2> /dev/null || say "writing $1 failed"
    done
}

for format in packed split; do
    options=
    [ $format = packed ] || options=--split
    truncate -s 64M /tmp/disk
    serve $options
    vdpa dev add name disk0 mgmtdev vduse || say "dev add failed"
    until_true [ -b /dev/vda ]
    say "$format: sectors=$(cat /sys/block/vda/size) serial=$(cat /sys/block/vda/serial)" \
        "queues=$(ls /sys/block/vda/mq | wc -l) discard=$(cat /sys/block/vda/queue/discard_max_bytes)" \
        "ring=$(cut -c 35 /sys/bus/virtio/devices/virtio*/features)"
    # Not the one of busybox.
    /bin/mke2fs -q -t ext4 /dev/vda || say "mkfs failed"
    mount -t ext4 -o discard /dev/vda /mnt || say "mount failed"

    load a 4096 oflag=direct &
    load b 65536 oflag=direct &
    load c 1048576 &
    for death in 1 2 3; do
        sleep 0.2
        die
        serve $options
        grep -q 'goes on' /tmp/daemon || say "the daemon says: $(cat /tmp/daemon)"
    done
    touch /tmp/over
    # All but the daemon.
    for load in $(jobs -p); do
        [ $load = $daemon ] || wait $load
    done
    rm /tmp/over
    umount /mnt || say "umount failed"
    mount -t ext4 /dev/vda /mnt || say "the second mount failed"
    for file in a b c; do say "$format: $file=$(hash < /mnt/$file)"; done
    rm /mnt/a
    umount /mnt || say "umount failed"
    e2fsck -fn /dev/vda > /tmp/fsck 2>&1 && say "$format: file system clean" || cat /tmp/fsck

    die
    truncate -s 72M /tmp/disk
    serve $options
    until_true grep -q 147456 /sys/block/vda/size
    say "$format: grown=$(cat /sys/block/vda/size)"

    vduse-blk --destroy disk0 2> /tmp/refused && say "destroyed in use"
    say "$format: $(cat /tmp/refused)"
    vdpa dev del disk0 || say "dev del failed"
    until_true is_gone /dev/vda
    die
    vduse-blk --destroy disk0 && until_true is_gone /dev/vduse/disk0 && say "$format: destroyed"
    rm /tmp/disk
done

# A driver in user space on the same device. Its memory is the daemon's as long as it is mapped.
truncate -s 64K /tmp/disk
dd if=/pattern of=/tmp/disk bs=64k count=1 2> /dev/null
cp /tmp/disk /tmp/before
serve
vdpa dev add name disk0 mgmtdev vduse || say "dev add failed"
until_true [ -e /sys/bus/vdpa/drivers/virtio_vdpa/disk0 ]
echo disk0 > /sys/bus/vdpa/drivers/virtio_vdpa/unbind
echo vhost_vdpa > /sys/bus/vdpa/devices/disk0/driver_override
echo disk0 > /sys/bus/vdpa/drivers/vhost_vdpa/bind
until_true [ -c /dev/vhost-vdpa-0 ]
mappings() { grep -c vhost-vdpa-disk /proc/$daemon/maps; }
mkfifo /tmp/steps
vhost_vdpa_disk /dev/vhost-vdpa-0 16 < /tmp/steps > /tmp/read 2> /tmp/driver &
driver=$!
exec 3> /tmp/steps
until_true grep -q '^mapped' /tmp/driver
say "vhost: mappings=$(mappings)"
echo >&3
until_true grep -q unmapped /tmp/driver
say "vhost: mappings=$(mappings)"
echo >&3
wait $driver || cat /tmp/driver
exec 3>&-
cmp /tmp/read /tmp/before && say "vhost: read"
# Each byte is turned.
cmp -l /tmp/disk /tmp/before | awk '{ n++ } END { print "guest: vhost: changed=" n }'
echo disk0 > /sys/bus/vdpa/drivers/vhost_vdpa/unbind
vdpa dev del disk0 || say "dev del failed"
die
vduse-blk --destroy disk0 && say "vhost: destroyed"

# What a daemon asks the kernel for, in order: the numbers of ioctls, and messages that are read and answered.
# traced NAME COMMAND...
traced() {
    truncate -s 64M /tmp/disk
    name=$1
    shift
    strace -f -e trace=ioctl,read,write -o /tmp/trace "$@" > /tmp/daemon 2>&1 &
    daemon=$!
    until_true [ -e /dev/vduse/disk0 ]
    # Until it serves what it has made.
    until_true grep -q VDUSE_VQ_SETUP /tmp/trace
    sleep 0.2
    vdpa dev add name disk0 mgmtdev vduse || say "dev add failed"
    until_true [ -b /dev/vda ]
    dd if=/dev/vda of=/dev/null bs=4096 count=1 iflag=direct 2> /dev/null || say "$name: reading failed"
    vdpa dev del disk0
    until_true is_gone /dev/vda
    killall vduse-blk qemu-storage-daemon 2> /dev/null
    wait $daemon 2> /dev/null
    say "$name: $(sed -n -e 's/.*ioctl([0-9]*, VDUSE_\([A-Z0-9_]*\).*/\1/p' \
        -e 's/.*read[( ].*= 152$/read/p' -e 's/.*write[( ].*= 152$/write/p' /tmp/trace | tr '\n' ' ')"
}
traced ours vduse-blk --split --queues 2 disk0 /tmp/disk
vduse-blk --destroy disk0
traced theirs qemu-storage-daemon --blockdev file,node-name=file0,filename=/tmp/disk \
    --export vduse-blk,id=export0,node-name=file0,name=disk0,writable=on,num-queues=2,queue-size=256
