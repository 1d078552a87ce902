"""What people see of a whole namespace at a glance. Nothing is changed here."""
