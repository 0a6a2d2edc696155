# Binds the functions of /functions to vfio-pci, unless they are only lent to whoever is in /inner. Says how they are
# kept apart, runs /inner, and says who has them then.

say() { echo "host: $*"; }
target_of() { basename "$(readlink "$1")"; }
driver_of() { target_of /sys/bus/pci/devices/$1/driver; }

while read -r function; do
    device=/sys/bus/pci/devices/$function
    group=$device/iommu_group
    if [ ! -e /lent ]; then
        echo vfio-pci > $device/driver_override
        # The kernel's own driver has come first.
        [ -e $device/driver ] && echo $function > $device/driver/unbind
        echo $function > /sys/bus/pci/drivers_probe
    fi
    say "$function group=$(target_of $group) domain=$(cat $group/type)" \
        "members=$(ls $group/devices | wc -l) driver=$(driver_of $function)"
done < /functions

{
    sh /inner < /dev/null 2>&1
    echo $? > /status
} | while IFS= read -r line; do
    echo "inner: $line"
done
while read -r function; do
    say "$function afterwards: driver=$(driver_of $function)" \
        "override=$(cat /sys/bus/pci/devices/$function/driver_override)"
done < /functions
say "the inner machine ended with $(cat /status)"
