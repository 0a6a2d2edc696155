# Binds the functions of /functions to vfio-pci, says how they are kept apart, and runs /inner.

say() { echo "host: $*"; }
target_of() { basename "$(readlink "$1")"; }

while read -r function; do
    device=/sys/bus/pci/devices/$function
    group=$device/iommu_group
    echo vfio-pci > $device/driver_override
    # The kernel's own driver may be built in and have come first.
    [ -e $device/driver ] && echo $function > $device/driver/unbind
    echo $function > /sys/bus/pci/drivers_probe
    say "$function group=$(target_of $group) domain=$(cat $group/type)" \
        "members=$(ls $group/devices | wc -l) driver=$(target_of $device/driver)"
done < /functions

{
    sh /inner < /dev/null 2>&1
    echo $? > /status
} | while IFS= read -r line; do
    echo "inner: $line"
done
say "the inner machine ended with $(cat /status)"
