"""What connects Storeroom to a framework: the only place that imports one."""
